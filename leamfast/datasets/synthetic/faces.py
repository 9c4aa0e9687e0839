"""Rendering: one picture of one synthetic person with its exact region mask."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leamfast.datasets.synthetic import features, head, scene, wear
from leamfast.datasets.synthetic.canvas import TEMPLATE_SIDE, Canvas
from leamfast.datasets.synthetic.identity import draw_identity
from leamfast.datasets.synthetic.nuisance import draw_nuisance
from leamfast.datasets.synthetic.planting import check_plant
from leamfast.datasets.synthetic.pose import Pose
from leamfast.errors import RequestError

__all__ = ["FaceGenerator", "SyntheticFace"]


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """A rendered face.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        label: (size, size) uint8, index in `leamfast.faces.regions.REGIONS`.
        landmarks: (5, 2) float32, x and y in pixels (centres on integers): the person's right eye, left
            eye, nose tip, right and left mouth corner.
        metadata: the person's attributes.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    metadata: dict[str, str | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class FaceGenerator:
    """Synthetic people and their pictures, aligned like ArcFace crops.

    Person i depends on (seed, i), what varies between pictures (pose, expression, light, background,
    clothes, camera) on (seed, i, image): the order of rendering changes nothing.

    Args:
        seed: of the data set, 0 or more.
        size: side of the pictures in pixels.
        plant: region or group in `PLANTS` that alone differs between people; None: everything does.
        free: with a plant: all other regions are drawn anew for each picture, where otherwise everyone shares
            them.

    Raises:
        RequestError: an argument is out of range.

    >>> FaceGenerator(seed=1).render(identity=0, image=0).image.shape
    (112, 112, 3)
    """

    seed: int = 0
    size: int = TEMPLATE_SIDE
    plant: str | None = None
    free: bool = False

    def __post_init__(self) -> None:
        check_plant(self.plant)
        if self.free and self.plant is None:
            raise RequestError("free must come with a plant: without one, every region is the person's own")
        if self.seed < 0:
            raise RequestError(f"seed must be 0 or more, got {self.seed}: choose a non-negative number")
        if self.size < 16:
            raise RequestError(f"size must be at least 16 pixels, got {self.size}: choose 112 or more")

    def metadata(self, identity: int) -> dict[str, str | bool]:
        """The attributes of a person, without a picture (with `free`, those that all pictures share)."""
        return draw_identity(self.seed, identity, self.plant).metadata

    def render(
        self,
        identity: int,
        image: int,
        *,
        blur: bool = True,
        noise: bool = True,
        nuisance: tuple[int, int] | None = None,
    ) -> SyntheticFace:
        """Picture `image` of person `identity`.

        Args:
            identity: number of the person, 0 or more.
            image: number of the picture, 0 or more.
            blur: with the camera's blur.
            noise: with the camera's noise.
            nuisance: (identity, image) whose pose, light and so on (with `free`, whose other regions too) to
                use instead of this picture's own.
        """
        source = (identity, image) if nuisance is None else nuisance
        person = draw_identity(self.seed, identity, self.plant, source if self.free else None)
        extra, rng = draw_nuisance(self.seed, *source)
        pose = Pose.of(extra)
        canvas = Canvas(scene.backdrop(extra, self.size))
        head.paint_hair_behind(canvas, pose, person)
        head.paint_neck(canvas, pose, person)
        wear.paint_cloth(canvas, pose, person.cloth or extra.cloth)
        wear.paint_necklace(canvas, pose, person)
        head.paint_ears(canvas, pose, person)
        head.paint_face(canvas, pose, person, extra.mouth)
        features.paint_mouth(canvas, pose, person, extra)
        features.paint_nose(canvas, pose, person)
        features.paint_eyes(canvas, pose, person, extra)
        features.paint_brows(canvas, pose, person, extra)
        head.paint_hair(canvas, pose, person)
        wear.paint_hat(canvas, pose, person)
        wear.paint_glasses(canvas, pose, person)
        wear.paint_ear_rings(canvas, pose, person)
        scene.light(canvas.colour, extra)
        points = (features.landmarks(person, pose, extra) + 0.5) * canvas.scale - 0.5
        return SyntheticFace(
            image=scene.expose(canvas.colour, extra, rng, blur=blur, noise=noise),
            label=canvas.label,
            landmarks=points.astype(np.float32),
            metadata=person.metadata,
        )
