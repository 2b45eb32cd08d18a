# Checks data before the run reads it.
custom_hooks = [dict(type='knet_plugin.DataCheckHook')]
