import io
import os
import threading
import time
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from efficientnet_finetuning.data.decode import decode
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.prepare import one_hot, prepare
from efficientnet_finetuning.data.sources import EncodedImage, open_source
from efficientnet_finetuning.data.threads import map_in_threads
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, file_format: str = "PNG") -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return EncodedImage("a/1.png", buffer.getvalue(), 0)


def flag() -> Image.Image:
    """Three stripes of 32 × 32 pixels, from left to right."""
    return Image.fromarray(np.repeat(np.uint8([[RED, GREEN, BLUE]]), 32, axis=1).repeat(32, axis=0))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))


def source_and_manifest(root):
    parameters = DatasetParameters(path=root)
    source = open_source(parameters)
    findings = inspect_images(source, parameters, 100.0, seed=3)
    return source, build_manifest(findings, source.class_names, parameters, AuditParameters(), seed=3)


def test_stretch_keeps_the_whole_image_and_center_crop_its_middle_square():
    stretched = decode(encoded(flag()), 32, "stretch", "bilinear")
    assert [tuple(stretched[16, column]) for column in (4, 16, 28)] == [RED, GREEN, BLUE]
    cropped = decode(encoded(flag()), 32, "center_crop", "bilinear")
    assert (cropped[:, 2:-2] == GREEN).all()
    tall = decode(encoded(flag().transpose(Image.Transpose.ROTATE_90)), 64, "center_crop", "bicubic")
    assert tall.shape == (64, 64, 3)
    assert (tall[4:-4] == GREEN).all()


def test_pad_keeps_the_shape_between_bands_of_the_background():
    wide = decode(encoded(flag()), 32, "pad", "bilinear", background="#0a0b0c")
    width, height = flag().size
    inside = round(32 * height / width)
    top = (32 - inside) // 2
    bands = np.concatenate([wide[:top], wide[top + inside :]])
    assert (bands == (10, 11, 12)).all()
    assert [tuple(wide[16, column]) for column in (4, 16, 28)] == [RED, GREEN, BLUE]
    tall = decode(encoded(flag().transpose(Image.Transpose.ROTATE_90)), 32, "pad", "bilinear", background="#0a0b0c")
    assert (tall[:, :top] == (10, 11, 12)).all()
    square = Image.fromarray(np.asarray(noise())[:, :50])
    np.testing.assert_array_equal(
        decode(encoded(square), 32, "pad", "bicubic"), decode(encoded(square), 32, "stretch", "bicubic")
    )


def test_the_interpolations_differ():
    bicubic, bilinear = (decode(encoded(noise()), 32, "stretch", name) for name in ("bicubic", "bilinear"))
    assert np.abs(bicubic.astype(int) - bilinear).mean() > 1


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 130, (130, 130, 130)),
        ("LA", (130, 255), (130, 130, 130)),
        ("RGBA", (*RED, 255), RED),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("RGBA", (*RED, 0), (255, 255, 255)),
        ("I;16", 0x8000, (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, rgb):
    image = encoded(Image.new(mode, (40, 36), colour), "TIFF")
    decoded = decode(image, 32, "stretch", "bicubic")
    assert (decoded.shape, decoded.dtype) == ((32, 32, 3), np.uint8)
    assert (decoded == rgb).all()


def test_transparency_shows_the_background_that_was_asked_for():
    half = encoded(Image.new("RGBA", (40, 36), (*RED, 128)))
    assert tuple(decode(half, 32, "stretch", "bicubic")[5, 5]) == (255, 127, 127)
    assert tuple(decode(half, 32, "stretch", "bicubic", background="#0000ff")[5, 5]) == (128, 0, 127)


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(InputError, match="floating-point"):
        decode(encoded(Image.new("F", (40, 36), 0.5), "TIFF"), 32, "stretch", "bicubic")


def test_an_image_that_is_gone_is_named(tmp_path):
    with pytest.raises(InputError, match=r"The image a/1\.png was found earlier, but cannot be read now"):
        decode(EncodedImage("a/1.png", tmp_path / "gone.png", 0), 32, "stretch", "bicubic")


def test_a_palette_image_is_resized_in_colours_and_not_in_palette_indices():
    palette = flag().convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    decoded = decode(encoded(palette, "GIF"), 33, "stretch", "bilinear")
    assert np.abs(decoded[16, [5, 16, 27]].astype(int) - [RED, GREEN, BLUE]).max() <= 8
    assert np.unique(decoded.reshape(-1, 3), axis=0).shape[0] > 3


def test_a_16_bit_grey_image_keeps_its_brightness():
    grey = Image.fromarray(np.full((40, 36), 0x8000, np.uint16))
    assert np.abs(decode(encoded(grey), 32, "stretch", "bicubic").astype(int) - 128).max() <= 1


def test_labels_become_one_hot_bytes():
    hot = one_hot(np.array([2, 0, 2]), 4)
    assert hot.dtype == np.uint8
    assert hot.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]]


def test_a_prepared_split_has_the_manifests_order_labels_and_images(tmp_path, write_classes):
    source, manifest = source_and_manifest(write_classes(tmp_path, {"a": 20, "b": 20}))
    for split, size in (("train", 28), ("validation", 4), ("test", 8)):
        rows = manifest[manifest["split"] == split]
        examples = prepare(source, manifest, 2, split, image_size=32)
        assert (len(examples), examples.images.shape) == (size, (size, 32, 32, 3))
        assert examples.ids.tolist() == rows["id"].tolist()
        assert examples.labels.argmax(1).tolist() == rows["label"].tolist()
        # The red channel says which image of the listing it is.
        expected = [20 * (id_[0] == "b") + int(id_[2:-4]) for id_ in rows["id"]]
        assert [int(pixels[0, 0, 0]) for pixels in examples.images] == expected


def test_one_split_may_come_from_several_splits_of_the_source(tmp_path, write_classes):
    source, manifest = source_and_manifest(
        write_classes(tmp_path, {f"{s}/{c}": 10 for s in ("train", "test") for c in "ab"})
    )
    manifest["split"] = "train"
    examples = prepare(source, manifest, 2, "train", image_size=32)
    assert [int(pixels[0, 0, 0]) for pixels in examples.images] == list(range(40))


def test_an_image_that_is_damaged_behind_its_header_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 10, "b": 10})
    file = root / "b" / "3.png"
    source, manifest = source_and_manifest(root)
    file.write_bytes(encoded(noise()).content[:2000])
    with pytest.raises(InputError) as caught:
        prepare(source, manifest.assign(split="train"), 2, "train", image_size=32)
    assert str(caught.value).startswith("The image b/3.png cannot be decoded: ")
    assert str(caught.value).endswith("Repair it or remove it from the set.")


def test_an_image_with_a_damaged_palette_is_named():
    damaged = bytearray(encoded(noise().convert("P"), "BMP").content)
    damaged[46:48] = (300).to_bytes(2, "little")  # the number of colours in the palette
    with pytest.raises(InputError, match=r"The image a/1\.png cannot be decoded"):
        decode(EncodedImage("a/1.png", bytes(damaged), 0), 32, "stretch", "bicubic")


def test_threads_keep_the_order_and_pull_only_a_bounded_number_of_items_ahead():
    last = -1

    def items():
        nonlocal last
        while last < 10**6:
            last += 1
            yield last

    def slow_at_times(item: int) -> int:
        time.sleep(0.002 if item % 7 == 0 else 0)
        return 10 * item

    results = map_in_threads(slow_at_times, items())
    ahead = []
    for expected, result in enumerate(islice(results, 300)):
        assert result == 10 * expected
        ahead.append(last - expected)
    results.close()
    assert max(ahead) <= 32 * os.cpu_count()
    assert last < 10**6


def test_threads_are_no_more_than_a_worker_may_use(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def thread(_: int) -> int:
        time.sleep(0.0005)
        return threading.get_ident()

    assert len(set(map_in_threads(thread, range(100)))) == 1


def test_threads_pass_an_error_on():
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda number: 1 / number, [2, 1, 0, 4]))
