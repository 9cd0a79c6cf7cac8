"""Image data sets with a folder for each class: TOP/train/CLASS/*.png and TOP/test/CLASS/*.png.

To add one, write a function that takes the folder of raw files and returns
`from_folders(TOP / "train", TOP / "test", size=(64, 64))`, and name it in `DATASETS` of catalog.py. Then
`python -m stages.prepare` reads it.
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stages.base.console import UserError
from stages.base.splits import Split
from stages.datasets.dataset import Dataset


def from_folders(train: Path, test: Path, *, size: tuple[int, int], grey: bool = False) -> Dataset:
    """Return the data set of the images in `train` and `test`, each with a folder for each class.

    Inputs are uint8 from 0 to 255, (height, width, 1) if `grey`, else (height, width, 3); to scale them, give
    the network a `Rescaling` layer. Images are resized bilinearly to `size`, (height, width). Classes are the
    names of the folders, sorted. Hidden files and folders (their names begin with a dot) are ignored.

    Raises:
        UserError: the two parts have different folders, a class has no image, or a file is not an image.
    """
    names, test_names = (
        [path.name for path in sorted(part.iterdir()) if path.is_dir() and path.name[0] != "."]
        for part in (train, test)
    )
    if names != test_names:
        both = f"{train} has folders {', '.join(names)}, but {test} {', '.join(test_names)}"
        raise UserError(f"{both}; each part should have a folder for each class")
    digest, parts = hashlib.sha256(), []
    for part in (train, test):
        paths = [path for name in names for path in sorted((part / name).iterdir()) if path.name[0] != "."]
        if empty := set(names) - {path.parent.name for path in paths}:
            raise UserError(f"{part / min(empty)} has no image; each class needs some in each part")
        images = np.empty((len(paths), *size, 1 if grey else 3), np.uint8)
        for i, path in enumerate(paths):
            images[i] = _image(path, size, "L" if grey else "RGB").reshape(images[i].shape)
            digest.update(f"{path.relative_to(part.parent)}\n".encode() + path.read_bytes())
        parts.append(Split(images, np.array([names.index(path.parent.name) for path in paths], np.int32)))
    digests = {f"{train.name}, {test.name}": digest.hexdigest()}
    return Dataset(parts[0], parts[1], digests, class_names=names)


def _image(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """Return the image in `path` upright, in Pillow's `mode` and resized to `size`, uint8."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # Pillow would clip them to 8
                raise UserError(f"{path} has more than 8 bits per channel; read it in your own function")
            upright = ImageOps.exif_transpose(image)  # the camera's orientation is in EXIF
            return np.asarray(upright.convert(mode).resize(size[::-1], Image.Resampling.BILINEAR))
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image ({error}); remove it from the folder") from None
