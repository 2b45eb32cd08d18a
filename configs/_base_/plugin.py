"""Makes the ``mmseg::`` and ``mmdet::`` bases that follow it findable with the maintained forks, however a config is read.

Importing the package is what does it (``knet_plugin/host_names.py``); as a call, because an import statement would make
mmengine read the file as one of its lazy configs.
"""
__import__('knet_plugin')
