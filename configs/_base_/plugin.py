"""Imports knet_plugin, which lets mmengine find the ``mmseg::`` and ``mmdet::`` bases in the maintained forks.

It is a call because mmengine would take a file with an import statement for one of its lazy configs.
"""
__import__('knet_plugin')
