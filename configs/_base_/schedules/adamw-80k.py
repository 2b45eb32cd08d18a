# The schedule of all published semantic models: AdamW, 80,000 iterations of 16 images (8 GPUs x 2).
_base_ = ['../plugin.py', 'mmseg::_base_/schedules/schedule_80k.py']

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, weight_decay=0.0005),
    clip_grad=dict(max_norm=1, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    # Milestones count from `begin`: the drops come after 60,000 and 72,000 iterations.
    dict(type='MultiStepLR', by_epoch=False, begin=1000, end=80000, milestones=[59000, 71000])
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
