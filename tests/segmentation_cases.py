"""Whole segmentors of the goldens: their configs, batches and results."""

from typing import Any

import torch
from golden import Golden, assert_close, decode_head_config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor


def labelled(labels: Tensor, **metainfo: Any) -> list[SegDataSample]:
    """A batch of mmseg's samples with label maps (B, 1, H, W)."""
    return [SegDataSample(metainfo=dict(metainfo, seg_map_path=f'{i}.png'), gt_sem_seg=PixelData(data=label))
            for i, label in enumerate(labels)]


def segmentor_config(official: dict) -> dict:
    """An official segmentor's config with our decode head."""
    cfg = {key: value for key, value in official.items() if key != 'pretrained'}
    return dict(cfg, decode_head=decode_head_config(cfg['decode_head']))


def segmentation_samples(golden: Golden) -> list[SegDataSample]:
    """The batch of a whole-segmentor case."""
    size, original = tuple(golden['in/img'].shape[-2:]), tuple(golden.info['img_metas'][0]['ori_shape'][:2])
    return labelled(golden['in/gt_semantic_seg'].long(), img_shape=size, pad_shape=size, ori_shape=original)


def check_segmentation(model: torch.nn.Module, golden: Golden) -> None:
    """Logits, probabilities and classes of a whole-segmentor case."""
    images = golden['in/img']
    with torch.no_grad():
        logits = model.decode_head(model.extract_feat(images))
        results = model(images, segmentation_samples(golden), mode='predict')
    assert_close({'logits': logits}, {'logits': golden['out/eval/decode_logits']}, 1e-4)
    probabilities = results[0].seg_logits.data.softmax(0)
    assert (probabilities - golden['out/eval/prob_img0']).abs().max() <= 1e-3  # stored in half precision
    wrong = sum((result.pred_sem_seg.data[0] != expected).sum().item()
                for result, expected in zip(results, golden['out/eval/pred'], strict=True))
    assert wrong <= 5  # argmax ties
