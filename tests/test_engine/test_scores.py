"""Scores in percent, and their table."""

from knet_plugin.engine.scores import percent_scores, score_table


def test_scores_in_percent():
    panoptic = {'coco_panoptic/PQ': 12.5, 'coco_panoptic/SQ': 80., 'coco/segm_mAP': 0.25, 'coco/segm_mAP_l': -1.,
                'mIoU': 30., 'aAcc': 50.}
    assert percent_scores(panoptic) == {'PQ': 12.5, 'mask AP': 25., 'mIoU': 30.}
    assert percent_scores({'mIoU': 30., 'aAcc': 50.}) == {'mIoU': 30., 'aAcc': 50.}


def test_scores_that_cannot_be_computed_are_left_out():
    assert percent_scores({'coco/segm_mAP': 0.5, 'coco/segm_mAP_75': -1.}) == {'mask AP': 50.}


def test_unknown_metrics_stay_as_they_are():
    assert percent_scores({'count': 4, 'names': ['a']}) == {'count': 4.}


def test_table():
    lines = score_table({'iter 5': {'PQ': 1.25, 'mIoU': 2.}, 'iter 10': {'PQ': 3.}}, 'iter 10').splitlines()
    assert [line.split() for line in lines] == [['PQ', 'mIoU'], ['iter', '5', '1.2', '2.0'],
                                                ['iter', '10', '3.0', '*', 'best']]
    assert lines[1].index('1.2') == lines[2].index('3.0')
