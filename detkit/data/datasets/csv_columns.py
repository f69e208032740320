"""Which column of a CSV table means what: by the header, by the shape of a table without one, or as a config says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detkit.data.datasets.box_formats import BoxFormat
from detkit.data.datasets.csv_file import Row, Table, is_number
from detkit.utils.console import nearest, shorten_list

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIDES = ("x", "y", "box_width", "box_height")
KNOWN: dict[str, tuple[str, ...]] = {
    "image": ("filename", "filepath", "image", "imagename", "imagepath", "imgpath", "img", "path", "file", "imageid"),
    "class": ("class", "label", "classname", "labelname", "category", "categoryname", "name"),
    "xmin": ("xmin", "x1", "left", "bboxxmin", "bboxx1", "boxxmin"),
    "ymin": ("ymin", "y1", "top", "bboxymin", "bboxy1", "boxymin"),
    "xmax": ("xmax", "x2", "right", "bboxxmax", "bboxx2", "boxxmax"),
    "ymax": ("ymax", "y2", "bottom", "bboxymax", "bboxy2", "boxymax"),
    "x": ("x", "bboxx", "cx", "xcenter", "centerx"),
    "y": ("y", "bboxy", "cy", "ycenter", "centery"),
    "box_width": ("w", "bboxwidth", "bboxw", "boxwidth", "boxw"),
    "box_height": ("h", "bboxheight", "bboxh", "boxheight", "boxh"),
    "box": ("bbox", "box"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "ignore": ("difficult", "iscrowd", "isgroupof", "ignore"),
    "split": ("split", "subset", "set"),
}
"""Role of a column -> names that it has in headers, in lower case without spaces, underscores and the like."""
CLASS_NAMES = ("classname", "labelname", "categoryname")
"""Columns of names, which may stand beside a column of numbers."""
TUTORIAL = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
"""The header of the TensorFlow tutorials, whose numbers are copied from Pascal VOC files; more columns may follow."""
KERAS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
"""The columns of a table without header, as keras-retinanet has them."""


@dataclass(frozen=True)
class Columns:
    """Role -> number of its column from 0; the format of the boxes; whether the first row is a header."""

    of: Mapping[str, int]
    box_format: BoxFormat
    has_header: bool
    from_voc: bool = False


def columns_of(
    table: Table,
    columns: Mapping[str, str] | None,
    header: Sequence[str] | None,
    box_format: BoxFormat | None,
    needs_class: bool,
) -> Columns:
    """The columns of a table; ValueError that lists what is missing and how to name it."""
    first = table.rows[0].texts
    if header is None and columns is None and is_keras(first):
        return Columns({role: i for i, role in enumerate(KERAS)}, "xyxy", has_header=False)
    names = list(header) if header is not None else first
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"{table.path}: the header has {shorten_list(twice)} twice: rename one of them")
    roles = with_class_names(known_roles(names), names, table.rows[header is None :])
    if columns is not None:
        roles = {**roles, **given_roles(table.path, columns, names)}
    needed = {"image", "class"} if needs_class else {"image"}
    missing = sorted(needed.difference(roles))
    layout = box_layout(table.path, roles, box_format, names)
    if missing:
        raise ValueError(f"{table.path}: no column for {' and '.join(missing)}: {way_out(names)}")
    return Columns(roles, layout, has_header=header is None, from_voc=is_tutorial(names))


def is_tutorial(names: Sequence[str]) -> bool:
    """Whether a header is that of the TensorFlow tutorials."""
    return [name.lower() for name in names][: len(TUTORIAL)] == TUTORIAL


def is_keras(cells: Sequence[str]) -> bool:
    """Whether a row is path, x1, y1, x2, y2, class, as in a table without header."""
    if len(cells) != 6 or not cells[0]:
        return False
    return all(map(is_number, cells[1:5])) or not any(cells[1:])


def plain(name: str) -> str:
    """A column's name in lower case without spaces, underscores, dots and hyphens."""
    return re.sub(r"[\W_]+", "", name.lower())


def known_roles(names: Sequence[str]) -> dict[str, int]:
    """The roles that column names are known for. With x, y and no other sides, width and height are the box's.

    A corner without the other one, as left, top, width, height, is x, y.
    """
    by_name = {plain(name): i for i, name in reversed(list(enumerate(names)))}
    roles = {role: by_name[known] for role, known in first_known(by_name).items()}
    if {"xmin", "ymin"} <= set(roles) and {"x", "y", "xmax", "ymax"}.isdisjoint(roles):
        roles.update(x=roles.pop("xmin"), y=roles.pop("ymin"))
    if {"x", "y"} <= set(roles) and "box_width" not in roles and not set(CORNERS) <= set(roles):
        for side in ("width", "height"):
            if side in roles:
                roles[f"box_{side}"] = roles.pop(side)
    return roles


def with_class_names(roles: dict[str, int], names: Sequence[str], rows: Sequence[Row]) -> dict[str, int]:
    """The roles; where the column of classes has numbers, and another one the classes' names, it is that one."""
    named = next((i for i, name in enumerate(names) if plain(name) in CLASS_NAMES), None)
    column = roles.get("class")
    if named is None or column is None or column == named:
        return roles
    cells = [row.texts[column] for row in rows if column < len(row.texts)]
    return {**roles, "class": named} if all(map(is_number, filter(None, cells))) else roles


def first_known(by_name: Mapping[str, int]) -> dict[str, str]:
    """Role -> the name in a header that it is known by."""
    return {role: next(n for n in known if n in by_name) for role, known in KNOWN.items() if set(known) & set(by_name)}


def given_roles(path: str, columns: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """The roles as a config maps them; ValueError for a role or a column that is not there."""
    for role, name in columns.items():
        if role not in KNOWN:
            known = f"{nearest(role, list(KNOWN))} Roles: {', '.join(KNOWN)}"
            raise ValueError(f"{path}: columns: unknown role {role!r}{known}")
        if name not in names:
            raise ValueError(
                f"{path}: columns: {role}: no column {name!r}{nearest(name, names)} Columns: {shorten_list(names)}"
            )
    return {role: list(names).index(name) for role, name in columns.items()}


def box_layout(path: str, roles: Mapping[str, int], given: BoxFormat | None, names: Sequence[str]) -> BoxFormat:
    """The format of the boxes; ValueError if the columns leave it open or contradict what is given."""
    corners, sides = set(CORNERS) <= set(roles), set(SIDES) <= set(roles)
    if "box" in roles and not corners and not sides:
        if given is None:
            column = names[roles["box"]]
            raise ValueError(f"{path}: {column} may have corners or sizes: set box_format: xyxy, xywh or cxcywh")
        return given
    if corners and given in (None, "xyxy"):
        return "xyxy"
    if not sides or given == "xyxy":
        wanted = SIDES if given in ("xywh", "cxcywh") else CORNERS
        missing = [role for role in wanted if role not in roles]
        raise ValueError(f"{path}: no column for {', '.join(missing)}: {way_out(names)}")
    names_xy = {plain(names[roles[role]]) for role in ("x", "y")}
    known: BoxFormat | None = None
    if names_xy <= set(KNOWN["x"][2:] + KNOWN["y"][2:]):
        known = "cxcywh"
    elif names_xy <= set(KNOWN["xmin"] + KNOWN["ymin"]):
        known = "xywh"
    if given is None and known is None:
        x, y = names[roles["x"]], names[roles["y"]]
        raise ValueError(
            f"{path}: {x} and {y} may be a box's left upper corner or its centre: set box_format: xywh or cxcywh"
        )
    return given or known or "xywh"


def way_out(names: Sequence[str]) -> str:
    """How a config names the columns."""
    return (
        "name them with columns: {image: ..., class: ..., xmin: ..., ymin: ..., xmax: ..., ymax: ...}; the columns of "
        f"the file: {shorten_list([repr(name[:40]) for name in names])}. A file without a header needs `header`, too"
    )
