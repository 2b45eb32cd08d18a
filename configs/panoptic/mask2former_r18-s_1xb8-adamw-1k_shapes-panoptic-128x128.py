# mmdet's Mask2Former to compare the small K-Net with: its backbone and widths, 20 queries, 3 decoder layers (stock: 9).
_base_ = [
    '../_base_/models/mask2former_r50.py', '../_base_/datasets/shapes-clear_panoptic.py',
    '../_base_/schedules/adamw-1k.py', 'mmdet::_base_/default_runtime.py'
]

classes = dict(num_things_classes=6, num_stuff_classes=4)
attention, ffn = dict(embed_dims=64), dict(embed_dims=64, feedforward_channels=256)
model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(depth=18, base_channels=32, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None),
    panoptic_head=dict(
        **classes,
        in_channels=[32, 64, 128, 256],
        feat_channels=64,
        out_channels=64,
        num_queries=20,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=32)),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
        loss_cls=dict(class_weight=[1.0] * 10 + [0.1])),
    panoptic_fusion_head=classes,
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=20))
# This model fills no semantic map.
val_evaluator = [metric for metric in _base_.val_evaluator if metric.type != 'SemSegMetric']
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000), logger=dict(log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
