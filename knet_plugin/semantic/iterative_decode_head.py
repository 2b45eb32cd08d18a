"""K-Net on top of any mmseg decode head with a linear classifier."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor

from knet_plugin.checkpoint.mismatch import log_mismatches
from knet_plugin.checkpoint.key_map import rename_official_keys
from knet_plugin.core import KernelUpdateHead
from knet_plugin.registry import MODELS, SCOPE
from knet_plugin.semantic.checks import check_finite, check_labels
from knet_plugin.semantic.adapters import Refused, Adapter, exchange, adapter_of
from knet_plugin.semantic.stage_config import resolve_stage_configs

__all__ = ['IterativeDecodeHead']


@MODELS.register_module()
class IterativeDecodeHead(BaseModule):
    """A stock decode head whose classifier is refined by S kernel update stages (Section 3.3 of the paper).

    Every decode head with a linear classifier sends its last feature through ``BaseDecodeHead.cls_seg``. What enters
    there is F, the 1 x 1 weight of ``conv_seg`` is K_0, what leaves is M_0. This head owns the stock head, puts
    ``cls_seg`` and ``loss_by_feat`` of its own in the stock ones' places and leaves all the rest (forward, loss,
    predict, the handling of cascades) to it, so whatever the stock head does between its inputs and its classifier
    stays done. What else a head trains on (auxiliary maps, boundaries) keeps its losses. For heads that are special,
    the table :data:`knet_plugin.semantic.adapters.ADAPTERS` says how to get in, or why not; one that trains on several
    outputs and is not there is refused at the first loss.

    Weights of the official release, of mmseg's own K-Net and of the stock head alone are renamed while they are loaded.

    Args:
        kernel_generate_head: Config of the decode head that yields F, K_0 and M_0. It is built in mmseg's scope where
            the default scope is mmengine's, mmdet's or this package's, so its own parts may be named without prefix.
        num_stages: Update stages S; 0 is the plain head.
        kernel_update_head: What differs from the defaults of a stage, one config for all stages or a sequence of S. The
            defaults follow from the classifier: see :func:`knet_plugin.semantic.stage_config.default_stage_config`.
        init_cfg: mmengine's initialisation config.

    Raises:
        TypeError: If the stock head has no such classifier, or is one that K-Net does not go on; the message says why.
        ValueError: If ``num_stages`` is negative or not the number of configs, or if a stage's config contradicts the
            classifier (``channels``, ``num_classes``).
    """

    def __init__(self,
                 kernel_generate_head: dict,
                 num_stages: int = 3,
                 kernel_update_head: dict | Sequence[dict] | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.kernel_generate_head = _build_stock_head(kernel_generate_head)
        head = self.kernel_generate_head
        self._adapter = _adapter_for(type(head))
        stages = resolve_stage_configs(kernel_update_head, num_stages, self._adapter.channels(head), head.out_channels,
                                       head.num_classes)
        self.kernel_update_head = ModuleList([self._build_stage(i, cfg) for i, cfg in enumerate(stages)])
        self._recording = False
        self._stage_logits: list[Tensor] = []
        self._recorded_with_grad = False
        self._calls = 0
        head.loss_by_feat = self.loss_by_feat  # a bound method, not a closure, as all that the adapter puts there
        self._adapter.enter(head, self._refine)

    @staticmethod
    def _build_stage(index: int, cfg: dict) -> KernelUpdateHead:
        stage = MODELS.build(cfg)
        if getattr(stage, 'classifier', None) is not None:
            raise ValueError(f'kernel_update_head[{index}] has a classifier, but a semantic kernel is tied to its '
                             f'class and nothing would train it: remove classifier={cfg.get("classifier")}')
        return stage

    # What mmseg's segmentors, samplers and tools read from a decode head.

    num_classes = property(lambda self: self.kernel_generate_head.num_classes)
    out_channels = property(lambda self: self.kernel_generate_head.out_channels)
    threshold = property(lambda self: self.kernel_generate_head.threshold)
    ignore_index = property(lambda self: self.kernel_generate_head.ignore_index)
    align_corners = property(lambda self: self.kernel_generate_head.align_corners)
    in_channels = property(lambda self: self.kernel_generate_head.in_channels)
    in_index = property(lambda self: self.kernel_generate_head.in_index)
    input_transform = property(lambda self: self.kernel_generate_head.input_transform)
    channels = property(lambda self: self.kernel_generate_head.channels)
    loss_decode = property(lambda self: self.kernel_generate_head.loss_decode)
    sampler = property(lambda self: self.kernel_generate_head.sampler)

    @property
    def num_stages(self) -> int:
        """Update stages S."""
        return len(self.kernel_update_head)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stock head's forward with M_S in place of its own logits. Arguments are the stock head's."""
        return self._delegate(self.kernel_generate_head, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """The stock head's predict, on the last stage's logits. Arguments and result are the stock head's."""
        return self._delegate(self.kernel_generate_head.predict, *args, **kwargs)

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The stock head's losses of M_0 .. M_S, keys ``<name>.s0`` .. ``<name>.sS``. Arguments are the stock head's.

        Raises:
            ValueError: If a label is neither a class nor ``ignore_index``, if a label map is not one of the size of the
                batch, or if the stock head normalises a single value over the batch (pooling to 1 x 1 with batch norm
                and one image).
            FloatingPointError: If logits are not finite, except in float16, where a gradient scaler skips the step.
            TypeError: If the stock head trains on anything but what its classifier returned.
            RuntimeError: If reentrant activation checkpointing around the stock head cut the stages off.
        """
        with self._record():
            try:
                return self._delegate(self.kernel_generate_head.loss, *args, **kwargs)
            except ValueError as error:
                if 'more than 1 value per channel' not in str(error):
                    raise
                raise ValueError(
                    f'{type(self.kernel_generate_head).__name__} pools to 1 x 1 and normalises over the batch, which '
                    'takes more than one image in training: raise train_dataloader.batch_size above 1, use SyncBN over '
                    f'several processes, or another norm_cfg ({error})') from error

    def stage_logits(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """All of M_0 .. M_S, each (B, N, H, W), for looking at what the stages do. Arguments as for ``forward``."""
        with self._record():
            self._delegate(self.kernel_generate_head, *args, **kwargs)
            return self._stage_logits

    @contextmanager
    def _record(self) -> Iterator[None]:
        """Keep the stages' logits meanwhile. Tensors with history can neither be deep-copied nor be freed later."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            self._stage_logits = []

    def _delegate(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the stock head and make sure that it came by our adapter."""
        if self.kernel_generate_head.loss_by_feat.__self__ is not self:
            raise RuntimeError('the stock head inside this copy of IterativeDecodeHead still reports to the original. '
                               'nn.DataParallel makes such copies: use DistributedDataParallel (or copy.deepcopy)')
        self._calls = 0
        result = function(*args, **kwargs)
        if not self._calls:
            raise self._bypassed()
        return result

    def _bypassed(self) -> TypeError:
        return TypeError(f'{type(self.kernel_generate_head).__name__} classifies without calling its cls_seg, so K-Net '
                         'cannot get at its features')

    def _refine(self, feats: Tensor, kernels: Tensor, mask_logits: Tensor) -> Tensor:
        """M_S from F (B, C, H, W), K_0 (B, N, C, 1, 1) and M_0 (B, N, H, W)."""
        stage_logits = [mask_logits]
        for stage in self.kernel_update_head:
            kernels, mask_logits, _ = stage(feats, kernels, mask_logits)
            stage_logits.append(mask_logits)
        self._calls += 1
        if self._recording:
            self._stage_logits = stage_logits
            self._recorded_with_grad = torch.is_grad_enabled()
        return mask_logits

    def loss_by_feat(self, seg_logits: Any, batch_data_samples: list, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """In the stock ``loss_by_feat``'s place: the same loss once for each of M_0 .. M_S.

        Args:
            seg_logits: What the stock head's forward returned: M_S, or M_S among other outputs.
            batch_data_samples: mmseg's data samples.

        Returns:
            The stock losses and metrics of stage i under ``<name>.s<i>``; those of other outputs under their own names.
        """
        head = self.kernel_generate_head
        check_labels(batch_data_samples, self.num_classes, self.out_channels, self.ignore_index)
        self._check_stages(seg_logits)
        check_finite(self._stage_logits[-1], batch_data_samples)
        losses = {}
        for i, logits in enumerate(self._stage_logits):
            outputs, _ = exchange(seg_logits, self._stage_logits[-1], logits)
            for name, value in type(head).loss_by_feat(head, outputs, batch_data_samples, *args, **kwargs).items():
                # Those that count once come with every stage's, all equal: a head makes its losses in one go.
                losses[name if self._adapter.counts_once(name) else f'{name}.s{i}'] = value
        unused = [pattern for pattern in self._adapter.once or ()
                  if not any(fnmatchcase(name, pattern) for name in losses)]
        if unused and not isinstance(seg_logits, Tensor):
            raise ValueError(f'the entry of {type(head).__name__} in knet_plugin.semantic.ADAPTERS has once={unused}, but '
                             f'its losses are {sorted(losses)}')
        return losses

    def _check_stages(self, seg_logits: Any) -> None:
        """Refuse to train where the stages would silently get no loss, or none of their own."""
        head = type(self.kernel_generate_head).__name__
        if self._recording and not self._calls:
            raise self._bypassed()
        if not self._stage_logits:
            raise TypeError(f'loss_by_feat was called outside IterativeDecodeHead.loss, so the stages of {head} are '
                            'not known: call loss(inputs, batch_data_samples, train_cfg)')
        _, found = exchange(seg_logits, self._stage_logits[-1], self._stage_logits[-1])
        if not found:
            raise TypeError(f'{head} trains on other logits than those that its classifier returned last; K-Net cannot '
                            'tell what to supervise at each stage')
        if self._calls > 1:
            raise TypeError(f'{head} calls its classifier {self._calls} times in one forward; K-Net cannot tell which '
                            'of the maps to supervise at each stage')
        if not isinstance(seg_logits, Tensor) and self._adapter.once is None:
            raise TypeError(f'{head} trains on a {type(seg_logits).__name__}, not on a single map; say which of its '
                            f'losses do not read the map, as in knet_plugin.semantic.ADAPTERS[{head}] = Adapter(once=('
                            '\'loss_aux\', ))')
        if torch.is_grad_enabled() and not self._recorded_with_grad:
            raise RuntimeError(f'the stages of {head} have no gradients: reentrant activation checkpointing runs them '
                               'without; use torch.utils.checkpoint with use_reentrant=False')

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename official weights below ``prefix``, then load as usual, as strictly as the caller wants."""
        rename_official_keys(state_dict, self, prefix)
        own = self.state_dict(keep_vars=True).keys()
        for name in self.kernel_generate_head.state_dict(keep_vars=True):  # of a model without K-Net
            if prefix + name in state_dict and name not in own:
                state_dict[f'{prefix}kernel_generate_head.{name}'] = state_dict.pop(prefix + name)
        log_mismatches(state_dict, self, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _build_stock_head(cfg: dict) -> BaseDecodeHead:
    """Build a decode head so that it finds its own parts (losses above all) under the scopes that have none."""
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name in ('mmengine', 'mmdet', SCOPE):
        cfg = dict(cfg, _scope_=cfg.get('_scope_', 'mmseg'))
    kind = cfg.get('type')
    kind = MMSEG_MODELS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type):
        _adapter_for(kind)  # before it is built, for which more may be missing
    head = MMSEG_MODELS.build(cfg)
    if not isinstance(head, BaseDecodeHead):
        raise TypeError(f'kernel_generate_head must be one of mmseg\'s decode heads, got {type(head).__name__}')
    return head


def _adapter_for(kind: type) -> Adapter:
    """A adapter of one's own for a head of a class.

    Raises:
        TypeError: If K-Net does not go on it.
    """
    adapter = adapter_of(kind)
    if isinstance(adapter, Refused):
        raise TypeError(f'K-Net does not go on {kind.__name__}: {adapter.reason}')
    return copy.copy(adapter)
