import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads import FCNHead
from segmentation_cases import labelled

from knet_plugin.semantic.checks import check_labels, check_losses

HEAD = FCNHead(in_channels=4, channels=4, num_classes=7)


def maps(*sizes):
    return [torch.zeros(1, *size, dtype=torch.long) for size in sizes]


def test_labels_beyond_num_classes():
    labels = torch.stack(maps((8, 8), (8, 8)))
    labels[1, 0, 0, :2] = torch.tensor([255, 6])
    check_labels(labelled(labels), HEAD)
    labels[1, 0, 0, :2] = torch.tensor([7, 254])
    with pytest.raises(ValueError, match=r'num_classes=7.*\[7, 254\] in 1.png'):
        check_labels(labelled(labels), HEAD)


def test_label_map_of_another_size_than_its_image():
    """The loss would stretch the logits to fit."""
    batch = labelled(maps((64, 64)), img_shape=(60, 62), padding_size=(0, 2, 0, 4))
    check_labels(batch, HEAD)
    batch[0].set_metainfo(dict(img_shape=(60, 30)))
    with pytest.raises(ValueError, match=r'\(1, 64, 32\) with padding, got \(1, 64, 64\) from 0.png'):
        check_labels(batch, HEAD)
    with pytest.raises(ValueError, match=r'got \(1, 32, 32\) from 1.png'):
        check_labels(labelled(maps((64, 64), (32, 32))), HEAD)


def test_label_map_with_colours():
    with pytest.raises(ValueError, match=r'got \(64, 64, 3\) from 0.png'):
        check_labels(labelled(torch.zeros(2, 64, 64, 3, dtype=torch.long)), HEAD)


SOFTMAX = dict(type='CrossEntropyLoss')
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
DICE = dict(type='DiceLoss')


@pytest.mark.parametrize(('options', 'refused'), [
    (dict(num_classes=1), True), (dict(num_classes=1, loss_decode=[DICE, SOFTMAX]), True),
    (dict(num_classes=2, out_channels=1), True), (dict(num_classes=1, loss_decode=dict(type='OhemCrossEntropy')), True),
    (dict(num_classes=1, loss_decode=SIGMOID), False),
    (dict(num_classes=2, out_channels=1, loss_decode=SIGMOID), False),
    (dict(num_classes=2, out_channels=1, threshold=0.4, loss_decode=[SIGMOID, DICE]), False),
    (dict(num_classes=2), False),
])
def test_one_output_needs_a_sigmoid(options, refused):
    """A softmax over one class is always 1."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = FCNHead(in_channels=4, channels=4, **options)
    if refused:
        with pytest.raises(ValueError, match=f'num_classes={options["num_classes"]}.*use_sigmoid=True'):
            check_losses(head)
    else:
        check_losses(head)
