"""Keypoints of annotated photos, found on photos that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from sdcorr.annotations import Reference, References
from sdcorr.coco import on_photo
from sdcorr.encodings import check_size, encode_each
from sdcorr.errors import BadAnnotations, BadImage
from sdcorr.evaluation import match_shown
from sdcorr.geometry import Size
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import Photo
from sdcorr.types import Encoding, Matches

REACH = 0.05  # of the photo's longer side, within which references agree; see eval/README.md
MOST = 100  # references: each is matched with each photo, and their encodings are kept
TINY = 1e-6  # weight of a vote without any confidence, where there is no other


@dataclass(frozen=True, eq=False)
class Labels:
    """Where the K keypoints of a scheme lie in a photo.

    Args:
        places: ``(K, 2)`` float64, xy pixels, on the photo; NaN where no reference shows it.
        score: ``(K,)`` float32 cosine similarity, mean of the references that agree; NaN likewise.
        confidence: ``(K,)`` float32, 0 to 1; NaN likewise; None where the recipe is not calibrated.
        matched: ``(K,)`` bool, False where the matcher rejects the match with every reference.
        size: of the photo.
    """

    places: Tensor
    score: Tensor
    confidence: Tensor | None
    matched: Tensor
    size: Size


@dataclass(frozen=True, eq=False)
class Annotator:
    """Annotated photos, encoded once, that vote for where their keypoints lie in others.

    Args:
        pipeline: a loaded recipe.
        references: annotated objects of one category.

    Raises:
        BadAnnotations: a photo cannot be read, a keypoint lies outside it, or there are more
            than 100 objects.

    Example:
        ``Annotator(sdcorr.load("sift"), read_references(Path("labels.json")))("photo.jpg").places``
    """

    pipeline: Pipeline
    references: References
    _encoded: dict[Path, Encoding] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if (count := len(self.references.objects)) > MOST:
            raise BadAnnotations(
                f"expected at most {MOST} references, got {count}, and each is matched with each "
                "photo; keep those that show best what the photos may look like"
            )
        sizes = {one.photo: one.size for one in self.references.objects}
        encodings = encode_each(self.pipeline, list(sizes), self.subject)
        for (photo, size), found in zip(sizes.items(), encodings, strict=True):
            if isinstance(found, BadImage):
                raise BadAnnotations(f"reference {found}")
            try:
                check_size(photo, found.size, size)
            except BadImage as error:
                raise BadAnnotations(f"reference {error}") from error
            self._encoded[photo] = found
        scheme, objects = self.references.scheme, self.references.objects
        sure = tuple(on_photo(one, self._encoded[one.photo].size, scheme) for one in objects)
        object.__setattr__(self, "references", replace(self.references, objects=sure))

    @property
    def subject(self) -> str | None:
        """What the model is told that the photos show."""
        return self.references.scheme.subject if self.pipeline.recipe.uses_category else None

    def __call__(self, photo: Photo | Encoding) -> Labels:
        """The keypoints of one photo.

        Args:
            photo: an encoding, or anything that ``Pipeline.encode`` takes.

        Raises:
            BadImage, NotFinite, OutOfMemory: see ``Pipeline.encode``.
        """
        if not isinstance(photo, Encoding):
            (photo,) = self.pipeline.encode_batch([photo], self.subject, mirrored=False)
        found = [self._match(one, photo) for one in self.references.objects]
        visible = torch.stack([one.visible for one in self.references.objects])  # (R, K)
        return gather(found, visible, photo.size)

    def each(self, photos: Sequence[Path]) -> Iterator[Labels | BadImage]:
        """The keypoints of many photos, in order, or why there are none; memory is bounded."""
        for encoding in encode_each(self.pipeline, photos, self.subject, mirrored=False):
            yield encoding if isinstance(encoding, BadImage) else self(encoding)

    def _match(self, reference: Reference, photo: Encoding) -> Matches:
        """Matches of the visible keypoints of one reference."""
        scheme = self.references.scheme
        fused = self.pipeline.fuse(self._encoded[reference.photo], photo)
        names = [scheme.keypoints[index] for index in reference.visible.nonzero()[:, 0].tolist()]
        points = reference.points[reference.visible]
        symmetric = scheme.symmetric if self.pipeline.recipe.flip else ()
        return match_shown(fused, names, points, symmetric)


def gather(found: Sequence[Matches], visible: Tensor, size: Size) -> Labels:
    """The matches with each reference, made one by ``vote``.

    A reference's vote weighs as much as its match is confident, or scores if the recipe is not
    calibrated. The confidence is 1 - prod(1 - agreement * confidence) ** (1 / sqrt(R)): that of a
    single reference as it is, and of R that show the keypoint, rejected or not, the chance that
    not all which agree are wrong, if they were worth sqrt(R) that err independently. It follows
    from no theory: of the rules tried on PF-WILLOW, it was the least wrong (eval/README.md).

    Args:
        found: R matches, each of its reference's visible keypoints in their order.
        visible: ``(R, K)`` bool, which keypoints those are.
        size: of the photo.
    """
    places, score, matched = (
        _spread(values, visible)
        for values in zip(*((one.target, one.score, one.matched) for one in found), strict=True)
    )
    confidences = [one.confidence for one in found if one.confidence is not None]
    sure = _spread(confidences, visible) if len(confidences) == len(found) else None
    # rejected matches have a say only where there is no other
    voters = torch.where((matched > 0).any(dim=0), matched > 0, visible)
    weight = (score.clamp(min=0) if sure is None else sure) + TINY
    place, agreement = vote(places, weight * voters, REACH * max(size))
    share = weight * voters * agreement
    certain = None
    if sure is not None:
        doubt = (1 - agreement * voters * sure).prod(dim=0)
        certain = 1 - doubt ** (1 / visible.sum(dim=0).clamp(min=1).sqrt())
    return Labels(  # NaN where no reference shows the keypoint: no weight at all, 0 / 0
        size.clamp(place),
        ((share * score).sum(dim=0) / share.sum(dim=0)).float(),
        certain if certain is None else certain.float(),
        (matched > 0).any(dim=0),
        size,
    )


def vote(places: Tensor, weight: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Where most references agree: the mode of their places, not the mean.

    Of the places given, the one that has most weight around it, under a Gaussian of ``reach``,
    is moved once to the mean under the Gaussian (a step of mean shift; Comaniciu and Meer, 2002).

    Args:
        places: ``(R, K, 2)`` pixels, of K keypoints by R references.
        weight: ``(R, K)``, from 0; 0 has no say.
        reach: pixels.

    Returns:
        ``(K, 2)`` pixels, NaN where all weights are 0, and how far each reference agrees, 0 to 1,
        ``(R, K)``.

    Example:
        Two of three references agree:

        >>> places = torch.tensor([[[4.0, 7.0]], [[4.0, 7.0]], [[90.0, 7.0]]])
        >>> place, agreement = vote(places, torch.ones(3, 1), reach=5.0)
        >>> place.tolist(), agreement.T.tolist()
        ([[4.0, 7.0]], [[1.0, 1.0, 0.0]])
    """
    gaps = (places[:, None] - places[None]).norm(dim=-1)  # (R, R, K)
    support = (_near(gaps, reach) * weight).sum(dim=1)  # (R, K)
    first = torch.where(weight > 0, support, -1).argmax(dim=0)
    start = places[first, torch.arange(places.shape[1])]
    share = weight * _near((places - start).norm(dim=-1), reach)
    place = (share[..., None] * places).sum(dim=0) / share.sum(dim=0)[:, None]
    return place, _near((places - place).norm(dim=-1), reach)


def _near(distance: Tensor, reach: float) -> Tensor:
    """1 at no distance, falling as a Gaussian."""
    return (-(distance**2) / (2 * reach**2)).exp()


def _spread(values: Sequence[Tensor], visible: Tensor) -> Tensor:
    """Each reference's values at its visible keypoints, ``(R, K, ...)`` float64, elsewhere 0."""
    whole = torch.zeros(*visible.shape, *values[0].shape[1:], dtype=torch.float64)
    whole[visible] = torch.cat(list(values)).double()
    return whole
