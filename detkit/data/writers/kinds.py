"""What a format can't hold, counted like the problems of a reader."""

from __future__ import annotations

from detkit.data.datasets.problems import Kind

NO_IGNORE = Kind("ignore [regions are|region is] left out, because the format has none", lost=True)
IGNORE_AS_OBJECT = Kind("ignore [regions become objects|region becomes an object], because the format has none")
NO_CLASS = Kind("ignore [regions of any class are|region of any class is] left out, as a box needs a class", lost=True)
NOT_FINITE = Kind("[boxes are|box is] left out, because a coordinate is not a number", lost=True)
NEW_NAME = Kind("image [files get|file gets] another name, because two would have one or the format can't hold it")
NEW_CLASS = Kind("[classes get|class gets] another name, because the format can't hold it")
ONE_PIXEL = Kind(
    "[boxes are|box is] a pixel or less wide or high: the format has whole pixels, and detkit reads such a box as one "
    "without area"
)
NO_IDS = Kind("image [ids are|id is] lost: the format has none, and readers count from 1", quiet=True)
NO_OBJECT_IDS = Kind("annotation [ids are|id is] lost: the format has none", quiet=True)
NEW_OBJECT_ID = Kind("[annotations get|annotation gets] another id, because the split has its id twice", quiet=True)
NO_AREA = Kind("[areas of masks are|area of a mask is] lost: the format has boxes only", quiet=True)
SHARED = Kind("[images are|image is] in several splits")
