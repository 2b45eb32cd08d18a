"""Mask-piloted training: kernels that start from noised ground-truth masks, beside the ordinary ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knet_plugin.core.feature_map import resize
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.detection.targets import Assignment, SegmentTargets
from knet_plugin.registry import MODELS

__all__ = ['MaskPilots', 'PilotedProposals']

LEAST = 0.02  # probability in M_0 of a pixel outside the mask; inside, it is 1 - LEAST


class PilotedProposals(NamedTuple):
    """Input of the update stages with P pilots after the N ordinary kernels."""

    proposals: KernelProposals  # kernels and masks of all N + P
    hidden: Tensor  # which kernels the others do not see, see KernelInteraction: B, N + P, N + P
    assignment: Assignment  # each pilot and its object; pilots that only pad the batch do not appear


@MODELS.register_module()
class MaskPilots(nn.Module):
    """Adds a kernel for each object that starts from its noised mask and class (MP-Former, arXiv 2303.07336).

    ::

        M_0 = logit(mask), where random pixels are flipped
        K_0 = embedding(class) + sum_uv M_0 F, where some classes are replaced                       Eq. 3

    In every stage, a pilot learns mask and class of its own object without matching, so the stages have targets that
    do not change from one iteration to the next. A pilot sees the ordinary kernels and its own group in Eq. 6, the
    ordinary kernels see no pilot: their outputs are those without pilots. Stuff has no pilots, as its kernels are not
    matched. In MP-Former, noised masks guide every layer; here only the first stage, the others get the pilots' own.

    Args:
        num_things_classes: T, the number of classes.
        channels: Channels C of a kernel tap. A pilot starts as a 1 x 1 kernel, padded with zeros to K x K.
        num_groups: Pilots per object, each with other noise.
        mask_noise: Expected number of flipped pixels, relative to the object's area; they are spread over the image.
        label_noise: Share of pilots that start from a random class.
    """

    def __init__(self, num_things_classes: int, channels: int = 256, num_groups: int = 1, mask_noise: float = 0.2,
                 label_noise: float = 0.2) -> None:
        super().__init__()
        if num_groups < 1:
            raise ValueError(f'num_groups must be positive, got num_groups={num_groups}')
        for name, share in dict(mask_noise=mask_noise, label_noise=label_noise).items():
            if not 0 <= share <= 1:
                raise ValueError(f'{name} must be in [0, 1], got {name}={share}')
        self.num_groups = num_groups
        self.mask_noise = mask_noise
        self.label_noise = label_noise
        self.label_embedding = nn.Embedding(num_things_classes, channels)

    def forward(self, proposals: KernelProposals, targets: SegmentTargets,
                add_group_features: Callable[[Tensor, Tensor, Tensor], Tensor]) -> PilotedProposals:
        """Append the pilots of a batch to the kernels of the kernel head, whose method adds group features."""
        assignment = self._places(targets)
        place = assignment.images, assignment.kernels
        batch, ordinary, channels, size, _ = proposals.kernels.shape
        number = self.num_groups * max(targets.num_objects)  # P
        masks = self._noised_masks(targets, proposals.mask_logits.shape[-2:])
        mask_logits = masks.new_zeros((batch, number, *masks.shape[1:])).index_put(place, masks).logit(LEAST)
        mask_logits = mask_logits.to(proposals.mask_logits.dtype)  # M_0: B, P, H, W
        contents = self.label_embedding(self._noised_labels(targets)).to(proposals.kernels.dtype)
        kernels = contents.new_zeros((batch, number, channels)).index_put(place, contents)
        kernels = F.pad(kernels[..., None, None], [size // 2] * 4)  # B, P, C, K, K
        kernels = add_group_features(kernels, proposals.features, mask_logits)  # K_0
        extended = proposals._replace(kernels=torch.cat([proposals.kernels, kernels], dim=1),
                                      mask_logits=torch.cat([proposals.mask_logits, mask_logits], dim=1))
        return PilotedProposals(extended, self._hidden(targets, ordinary),
                                assignment._replace(kernels=ordinary + assignment.kernels))

    def _places(self, targets: SegmentTargets) -> Assignment:
        """Image, number among the pilots and object of each pilot, group after group."""
        images = targets.images[:sum(targets.num_objects)]
        counts = torch.tensor(targets.num_objects, device=images.device)
        objects = torch.arange(len(images), device=images.device)
        within = objects - (counts.cumsum(0) - counts)[images]  # 0, 1, .. in each image
        starts = torch.arange(self.num_groups, device=images.device) * max(targets.num_objects)
        return Assignment(images.repeat(self.num_groups), (starts[:, None] + within).flatten(),
                          objects.repeat(self.num_groups))

    def _noised_masks(self, targets: SegmentTargets, size: torch.Size) -> Tensor:
        """Masks at the size of F, where each pixel is flipped with a probability of noise x area / H W."""
        masks = resize(targets.masks[:sum(targets.num_objects), None].float(), size)[:, 0].repeat(self.num_groups, 1, 1)
        flipped = torch.rand_like(masks) < self.mask_noise * masks.mean(dim=(-2, -1), keepdim=True)
        return torch.where(flipped, 1 - masks, masks)

    def _noised_labels(self, targets: SegmentTargets) -> Tensor:
        labels = targets.labels[:sum(targets.num_objects)].repeat(self.num_groups)
        replaced = torch.rand(len(labels), device=labels.device) < self.label_noise
        return torch.where(replaced, torch.randint_like(labels, self.label_embedding.num_embeddings), labels)

    def _hidden(self, targets: SegmentTargets, ordinary: int) -> Tensor:
        """Pilots hide from the ordinary kernels and from other groups, and those that only pad the batch from all."""
        device, most = targets.labels.device, max(targets.num_objects)
        counts = torch.tensor(targets.num_objects, device=device)
        groups = torch.arange(1, self.num_groups + 1, device=device).repeat_interleave(most)
        groups = F.pad(groups, (ordinary, 0))  # 0: the ordinary kernels
        padding = (torch.arange(most, device=device) >= counts[:, None]).repeat(1, self.num_groups)  # B, P
        padding = F.pad(padding, (ordinary, 0))
        return ((groups > 0) & (groups != groups[:, None])) | padding[:, None]
