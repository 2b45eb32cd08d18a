"""K-Net on any decode head of mmseg."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule, ModuleList
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor

from knet_plugin.checkpoint.key_map import rename_official_keys
from knet_plugin.checkpoint.mismatch import log_mismatches
from knet_plugin.registry import MODELS, SCOPE
from knet_plugin.semantic.adapters import Adapter, Refused, adapter_of
from knet_plugin.semantic.checks import check_labels, check_losses
from knet_plugin.semantic.default_stage import semantic_stage_configs

__all__ = ['IterativeDecodeHead']


@MODELS.register_module()
class IterativeDecodeHead(BaseModule):
    """A stock decode head whose masks S kernel update stages refine (Section 3.3 of the paper)::

        F, K_0, M_0 = kernel_generate_head(features)
        K_i, M_i = kernel_update_head[i - 1](F, K_{i-1}, M_{i-1})     i = 1 .. S

    An adapter (``knet_plugin.semantic.adapters``) reads F, K_0 and M_0 from the stock head and makes it return M_S.
    Everything else the stock head does stays as it is. The losses that depend on the masks are computed for each of
    M_0 .. M_S, all others once.

    Weights of the official release, of mmseg's own K-Net and of the stock head alone are renamed while loading.

    Args:
        kernel_generate_head: Config of the stock head. It is built in mmseg's scope if the default scope is
            mmengine's, mmdet's or this package's, so its parts need no prefix.
        num_stages: Update stages S; 0 is the stock head.
        kernel_update_head: What differs from the default stage, one config for all stages or a sequence of S. The
            default is ``knet_plugin.semantic.default_stage.default_stage_config``.
        init_cfg: mmengine's initialisation config.

    Raises:
        TypeError: If K-Net does not support the stock head; the message gives the reason.
        ValueError: If ``num_stages`` is negative or not the number of configs, if a stage's config contradicts the
            classifier, or if a head with one output has a softmax.
    """

    def __init__(self,
                 kernel_generate_head: dict,
                 num_stages: int = 3,
                 kernel_update_head: dict | Sequence[dict] | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        head, self._adapter = _build_stock_head(kernel_generate_head)
        stages = semantic_stage_configs(kernel_update_head, num_stages, self._adapter.channels(head),
                                        head.out_channels, head.num_classes)
        self.num_stages = num_stages
        self.kernel_generate_head = head
        self.kernel_update_head = ModuleList([MODELS.build(cfg) for cfg in stages])
        check_losses(head)
        self._adapter.connect(head, self._refine)
        # The stages run inside the stock head, which returns M_S only. During `_run`, which needs M_0 .. M_S, this list
        # collects them for each call of `_refine`. Otherwise it is None, so that no tensor is kept.
        self._calls: list[list[Tensor]] | None = None

    # What mmseg's segmentors and test-time augmentation read from a decode head.

    num_classes = property(lambda self: self.kernel_generate_head.num_classes)
    out_channels = property(lambda self: self.kernel_generate_head.out_channels)
    threshold = property(lambda self: self.kernel_generate_head.threshold)
    ignore_index = property(lambda self: self.kernel_generate_head.ignore_index)
    align_corners = property(lambda self: self.kernel_generate_head.align_corners)

    def forward(self, *inputs: Any) -> Any:
        """The stock head's forward, with M_S in place of its own logits."""
        return self.kernel_generate_head(*inputs)

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """The stock head's predict, on M_S."""
        return self.kernel_generate_head.predict(*args, **kwargs)

    def loss(self, *args: Any) -> dict[str, Tensor]:
        """Losses and metrics of all stages.

        Args:
            args: As mmseg's segmentors call the stock head: its inputs, the data samples, and the training config.

        Returns:
            ``<name>.s0`` .. ``<name>.sS`` for what depends on the masks M_0 .. M_S, ``<name>`` for the rest.

        Raises:
            ValueError: If a label map does not fit its image, or a label is neither a class nor ``ignore_index``.
            TypeError: If the stages cannot be trained through the stock head; the message gives the reason.
        """
        *inputs, samples, _ = args
        head = self.kernel_generate_head
        check_labels(samples, head)
        outputs, stage_logits = self._run(*inputs)
        losses = {f'{name}.s{i}': value for i, logits in enumerate(stage_logits)
                  for name, value in self._adapter.stage_losses(head, logits, outputs, samples).items()}
        return losses | self._adapter.other_losses(head, outputs, samples)

    def stage_logits(self, *inputs: Any) -> list[Tensor]:
        """M_0 .. M_S, each (B, N, H, W). Arguments as for ``forward``."""
        return self._run(*inputs)[1]

    def _run(self, *inputs: Any) -> tuple[Any, list[Tensor]]:
        """The stock head's outputs, with M_S among them, and M_0 .. M_S."""
        calls: list[list[Tensor]] = []
        self._calls = calls
        try:
            outputs = self(*inputs)
        finally:
            self._calls = None
        name = type(self.kernel_generate_head).__name__
        if len(calls) != 1:
            raise TypeError(f'{name} calls cls_seg {len(calls)} times in a forward pass; K-Net needs exactly one call')
        if isinstance(outputs, Tensor) and outputs is not calls[0][-1]:
            raise TypeError(f'{name} returns another map than cls_seg, so K-Net cannot supervise its stages')
        return outputs, calls[0]

    def _refine(self, feats: Tensor, kernels: Tensor, mask_logits: Tensor) -> Tensor:
        """M_S from F (B, C, H, W), K_0 (B, N, C, 1, 1) and M_0 (B, N, H, W)."""
        stage_logits = [mask_logits]
        for stage in self.kernel_update_head:
            kernels, mask_logits, _ = stage(feats, kernels, mask_logits)
            stage_logits.append(mask_logits)
        if self._calls is not None:
            self._calls.append(stage_logits)
        return mask_logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename the weights of other K-Nets and of the stock head, then load as usual."""
        rename_official_keys(state_dict, self, prefix)
        own = self.state_dict(keep_vars=True).keys()
        for name in self.kernel_generate_head.state_dict(keep_vars=True):
            if prefix + name in state_dict and name not in own:
                state_dict[f'{prefix}kernel_generate_head.{name}'] = state_dict.pop(prefix + name)
        log_mismatches(state_dict, self, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _build_stock_head(cfg: dict) -> tuple[BaseDecodeHead, Adapter]:
    """Build the stock head and find its adapter."""
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name in ('mmengine', 'mmdet', SCOPE):
        cfg = dict(cfg, _scope_=cfg.get('_scope_', 'mmseg'))
    kind = MMSEG_MODELS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    if kind is None:
        raise KeyError(f'kernel_generate_head.type={cfg["type"]!r} is not a registered decode head of mmseg')
    adapter = adapter_of(kind)
    if isinstance(adapter, Refused):
        raise TypeError(f'K-Net does not support {kind.__name__}: {adapter.reason}')
    return MMSEG_MODELS.build(cfg), adapter
