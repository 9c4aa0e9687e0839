"""The synthetic faces: determinism, exact masks, planted regions, and the data set on disk."""

import csv

import cv2
import numpy as np
import pytest

from leamfast.datasets.synthetic import PLANTS, FaceGenerator, write_dataset
from leamfast.datasets.synthetic.canvas import Canvas, ellipse
from leamfast.datasets.synthetic.identity import draw_identity
from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS, region_index

TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
REACH = 4.0  # template pixels around the planted masks: anti-aliasing, thin corners, eye shadow


def clean(generator, identity, nuisance):
    return generator.render(identity, 0, blur=False, noise=False, nuisance=nuisance)


def planted_mask(face, plant):
    return np.isin(face.label, [region_index(name) for name in PLANTS[plant]])


# --- canvas ---------------------------------------------------------------------------------------------


def test_coverage_of_a_half_covered_column_is_one_half():
    canvas = Canvas(np.zeros((3, 112, 112), np.float32))
    square = np.array([(10.0, 10.0), (19.5, 10.0), (19.5, 19.5), (10.0, 19.5)])  # pixel 10 is covered by half
    shape = canvas.coverage(square)
    full = np.zeros((112, 112), np.float32)
    left, top, right, bottom = shape.box
    full[top:bottom, left:right] = shape.alpha
    assert full[15, 15] == 1
    # cv2 also fills the samples on the outline: at most one sample of four too many.
    assert full[15, 10] == pytest.approx(0.5, abs=0.26)
    assert full[15, 8] == full[15, 21] == 0


def test_paint_blends_and_labels_where_half_is_covered():
    canvas = Canvas(np.zeros((3, 112, 112), np.float32))
    shape = canvas.coverage(ellipse(56, 56, 20, 12))
    canvas.paint(shape, np.array([1.0, 0.5, 0.25]), region=4)
    inside = canvas.label == 4
    assert inside.sum() == pytest.approx(np.pi * 20 * 12, rel=0.03)
    np.testing.assert_array_equal(inside, canvas.colour[0] >= 0.5)
    np.testing.assert_allclose(canvas.colour[:, 56, 56], [1.0, 0.5, 0.25])


def test_shapes_off_the_canvas_paint_nothing():
    canvas = Canvas(np.zeros((3, 16, 16), np.float32))
    for centre in ((-50, 50), (50, 400), (300, -300)):
        canvas.paint(canvas.coverage(ellipse(*centre, 5, 5)), np.ones(3), region=3)
    assert not canvas.label.any()
    assert not canvas.colour.any()


# --- rendering ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [112, 97, 160])
def test_render_shapes_and_types(size):
    face = FaceGenerator(seed=1, size=size).render(0, 0)
    assert face.image.shape == (size, size, 3)
    assert face.image.dtype == np.uint8
    assert face.label.shape == (size, size)
    assert face.label.dtype == np.uint8
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float32
    assert set(face.metadata) == {
        "glasses", "hat", "ear_rings", "necklace", "beard", "hair", "hair_colour", "eye_colour", "skin",
    }  # fmt: skip


def test_render_is_deterministic_and_independent_of_order():
    first, second = FaceGenerator(seed=7), FaceGenerator(seed=7)
    expected = {(i, k): first.render(i, k) for i in range(3) for k in range(2)}
    for i, k in reversed(expected):
        again = second.render(i, k)
        np.testing.assert_array_equal(again.image, expected[i, k].image)
        np.testing.assert_array_equal(again.label, expected[i, k].label)


def test_seeds_identities_and_images_differ():
    pictures = [
        FaceGenerator(seed=seed).render(identity, image).image
        for seed in (0, 1)
        for identity in (0, 1)
        for image in (0, 1)
    ]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.mean(np.abs(one.astype(int) - other)) > 4


def test_people_differ_under_the_same_nuisance():
    generator = FaceGenerator(seed=0)
    labels = [clean(generator, identity, (0, 0)).label for identity in range(12)]
    for i, one in enumerate(labels):
        for other in labels[i + 1 :]:
            assert np.mean(one != other) > 0.02


def test_blur_and_noise_leave_the_mask_alone():
    generator = FaceGenerator(seed=0)
    soft, sharp = generator.render(3, 1), generator.render(3, 1, blur=False, noise=False)
    np.testing.assert_array_equal(soft.label, sharp.label)
    assert (soft.image != sharp.image).any()


def test_all_regions_occur_and_accessories_match_the_metadata():
    generator = FaceGenerator(seed=0)
    seen = np.zeros(len(REGIONS), int)
    for identity in range(40):
        faces = [generator.render(identity, image) for image in range(2)]
        present = set(np.unique([face.label for face in faces]).tolist())
        assert max(present) < len(REGIONS)
        seen[list(present)] += 1
        metadata = generator.metadata(identity)
        assert metadata == faces[0].metadata
        for key, region in (("glasses", "eyeg"), ("hat", "hat"), ("ear_rings", "earr")):
            assert metadata[key] == (region_index(region) in present), (identity, key)
    assert seen.min() >= 3, dict(zip(REGIONS, seen, strict=True))
    for region in ("background", "face", "cloth", "nose", "ulip", "llip"):
        assert seen[region_index(region)] == 40


def test_right_is_the_image_s_left():
    label = FaceGenerator(seed=0, plant="nose").render(0, 0).label  # planted: nothing hides the eyes
    for right, left in (("re", "le"), ("rb", "lb")):
        columns = [np.nonzero(label == region_index(name))[1].mean() for name in (right, left)]
        assert columns[0] < 56 < columns[1]


@pytest.mark.parametrize("size", [112, 224])
def test_landmarks_lie_near_the_template_and_on_their_regions(size):
    generator = FaceGenerator(seed=2, size=size)
    template = (TEMPLATE + 0.5) * size / 112 - 0.5
    points = []
    for identity in range(60):
        face = generator.render(identity, 0)
        points.append(face.landmarks)
        for (x, y), region in zip(face.landmarks[:3], ("re", "le", "nose"), strict=True):
            found = face.label[round(float(y)), round(float(x))]
            assert found in {region_index(region), region_index("eyeg")}
    offset = np.mean(points, axis=0) - template
    assert np.abs(offset).max() < 3 * size / 112


def test_a_picture_scales_with_its_size():
    small, large = FaceGenerator(seed=4, size=112), FaceGenerator(seed=4, size=224)
    for identity in range(4):
        a, b = small.render(identity, 0, noise=False), large.render(identity, 0, noise=False)
        halved = cv2.resize(b.image, (112, 112), interpolation=cv2.INTER_AREA)
        assert np.mean(np.abs(halved.astype(int) - a.image)) < 3
        assert np.mean(b.label[::2, ::2] == a.label) > 0.95


# --- planted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "free"), [(112, False), (160, False), (112, True)])
@pytest.mark.parametrize("plant", list(PLANTS))
def test_planted_people_differ_in_the_planted_region_only(plant, size, free):
    generator = FaceGenerator(seed=5, size=size, plant=plant, free=free)
    for identity in range(3):
        one, other = (clean(generator, who, (9, identity)) for who in (identity, identity + 1))
        planted = planted_mask(one, plant) | planted_mask(other, plant)
        distance = cv2.distanceTransform((~planted).astype(np.uint8), cv2.DIST_L2, 5)
        # A beard drawn anew may fade into the lips, which the face surrounds: by one grey level, 5 pixels in.
        far = distance > (REACH + 1.5 * (free and plant == "face")) * size / 112
        np.testing.assert_array_equal(one.image[far], other.image[far])
        np.testing.assert_array_equal(one.label[far], other.label[far])
        changed = (one.image != other.image).any(-1)
        assert changed.sum() > 0.25 * planted.sum()


@pytest.mark.parametrize("plant", ["nose", "eyes", "hair", "lips"])
def test_planted_people_differ_strongly(plant):
    generator = FaceGenerator(seed=6, plant=plant)
    faces = [clean(generator, identity, (0, 0)) for identity in range(6)]
    for i, one in enumerate(faces):
        for other in faces[i + 1 :]:
            planted = planted_mask(one, plant) | planted_mask(other, plant)
            assert np.abs(one.image[planted].astype(int) - other.image[planted]).mean() > 4


def test_planted_accessories_are_worn_by_everyone_and_others_by_no_one():
    for plant, key in (("eyeg", "glasses"), ("hat", "hat"), ("earr", "ear_rings"), ("neck_l", "necklace")):
        generator = FaceGenerator(seed=0, plant=plant)
        for identity in range(5):
            worn = {
                name: generator.metadata(identity)[name]
                for name in ("glasses", "hat", "ear_rings", "necklace")
            }
            assert worn == {name: name == key for name in worn}


def test_nuisances_vary_in_planted_sets():
    generator = FaceGenerator(seed=0, plant="nose")
    one, other = generator.render(0, 0), generator.render(0, 1)
    assert np.mean(np.abs(one.image.astype(int) - other.image)) > 10


def test_free_pictures_of_a_person_share_the_planted_region_only():
    one, other = (draw_identity(0, 3, "nose", (3, image)) for image in (0, 1))
    np.testing.assert_equal(vars(one.nose), vars(other.nose))
    for part in ("face", "hair", "upper_lip"):
        with pytest.raises(AssertionError):
            np.testing.assert_equal(vars(getattr(one, part)), vars(getattr(other, part)))
    shared, free = FaceGenerator(seed=0, plant="nose"), FaceGenerator(seed=0, plant="nose", free=True)
    assert len({free.render(3, image).metadata["skin"] for image in range(8)}) > 1
    assert len({shared.render(3, image).metadata["skin"] for image in range(8)}) == 1


def test_free_without_a_plant_is_refused():
    with pytest.raises(RequestError, match="free must come with a plant"):
        FaceGenerator(free=True)


@pytest.mark.parametrize("plant", ["background", "neck", "imouth", "chin", ""])
def test_unsuitable_plant_is_refused_with_the_allowed_names(plant):
    with pytest.raises(RequestError, match=r"plant must be one of face, .*nose.*lips, ears, got"):
        FaceGenerator(plant=plant)


@pytest.mark.parametrize(("argument", "value"), [("seed", -1), ("size", 8)])
def test_generator_refuses_bad_numbers(argument, value):
    with pytest.raises(RequestError, match=f"{argument} must be .* got {value}"):
        FaceGenerator(**{argument: value})


# --- writing --------------------------------------------------------------------------------------------


def test_written_data_set_is_what_was_rendered(tmp_path):
    calls = []
    manifest = write_dataset(tmp_path / "set", identities=3, images=2, seed=4, progress=calls.append)
    assert manifest == tmp_path / "set" / "manifest.csv"
    assert calls == [2, 2, 2]
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["path", "identity", "label"]
    assert [row["path"] for row in rows] == [f"id{i:04d}/{k:03d}.png" for i in range(3) for k in range(2)]
    generator = FaceGenerator(seed=4)
    for number, row in enumerate(rows):
        identity, image = divmod(number, 2)
        face = generator.render(identity, image)
        picture = cv2.imread(str(manifest.parent / row["path"]), cv2.IMREAD_COLOR)
        label = cv2.imread(str(manifest.parent / row["label"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture[..., ::-1], face.image)
        np.testing.assert_array_equal(label, face.label)
        assert row["identity"] == f"id{identity:04d}"
        assert row["label"] == f".labels/id{identity:04d}/{image:03d}.png"
        assert {key: row[key] for key in face.metadata} == {
            k: str(v).lower() for k, v in face.metadata.items()
        }


def test_writing_twice_gives_the_same_bytes(tmp_path):
    one = write_dataset(tmp_path / "one", identities=2, images=2, plant="eyes", size=64)
    other = write_dataset(tmp_path / "other", identities=2, images=2, plant="eyes", size=64)
    names = sorted(path.relative_to(one.parent) for path in one.parent.rglob("*") if path.is_file())
    assert len(names) == 2 * 2 * 2 + 1
    for name in names:
        assert (one.parent / name).read_bytes() == (other.parent / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identities": 0, "images": 2}, "identities must be at least 1, got 0"),
        ({"identities": 2, "images": -1}, "images must be at least 1, got -1"),
        ({"identities": 2, "images": 2, "plant": "neck"}, "plant must be one of .* got 'neck'"),
        ({"identities": 2, "images": 2, "seed": -3}, "seed must be 0 or more, got -3"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, arguments, message):
    with pytest.raises(RequestError, match=message):
        write_dataset(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(RequestError, match="out must be a new or an empty folder"):
        write_dataset(tmp_path, identities=1, images=1)
    with pytest.raises(RequestError, match="out must be a new or an empty folder"):
        write_dataset(tmp_path / "photo.png", identities=1, images=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]


def test_an_empty_folder_is_filled(tmp_path):
    assert write_dataset(tmp_path, identities=1, images=1, size=64).exists()
