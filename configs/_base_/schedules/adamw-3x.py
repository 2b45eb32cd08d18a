# For data sets that show every image three times in an epoch.
_base_ = './adamw-1x.py'

param_scheduler = _base_.param_scheduler
param_scheduler[1].update(milestones=[9, 11])
