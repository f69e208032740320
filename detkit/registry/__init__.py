"""Registries: a name in a config file -> the class that it builds. Plugins import from here.

    from detkit.registry import BACKBONES

    @BACKBONES.register()
    class MyNet(Backbone):
        def __init__(self, *, width: int = 64) -> None: ...

The constructor is the schema: keyword-only, annotated. Registering is all a plugin does; its module gets
imported through `imports:` in the config or the entry-point group `detkit.plugins`. Bounds are types, too: `Fraction`,
`NonNegative` and the others of `detkit.registry.bounds`.
"""

from detkit.registry.arguments import enforce_bounds
from detkit.registry.bounds import (
    Channels,
    Fraction,
    FractionAboveZero,
    FractionBelowOne,
    Layers,
    NonNegative,
    NonNegativeInt,
    OpenFraction,
    Positive,
    PositiveInt,
    Seed,
    Side,
)
from detkit.registry.parts import (
    ANCHORS,
    ASSIGNERS,
    BACKBONES,
    BOX_LOSSES,
    CLASS_LOSSES,
    CODERS,
    DATASETS,
    HEADS,
    NECKS,
    NMS,
    NORMALIZERS,
    OPTIMIZERS,
    REGISTRIES,
    SCHEDULES,
    TRANSFORMS,
)
from detkit.registry.path_types import PathStr, WeightsStr
from detkit.registry.plugins import PLUGIN_GROUP, load_plugins, note_import
from detkit.registry.registry import Registry

__all__ = [
    "ANCHORS",
    "ASSIGNERS",
    "BACKBONES",
    "BOX_LOSSES",
    "CLASS_LOSSES",
    "CODERS",
    "DATASETS",
    "HEADS",
    "NECKS",
    "NMS",
    "NORMALIZERS",
    "OPTIMIZERS",
    "PLUGIN_GROUP",
    "REGISTRIES",
    "SCHEDULES",
    "TRANSFORMS",
    "Channels",
    "Fraction",
    "FractionAboveZero",
    "FractionBelowOne",
    "Layers",
    "NonNegative",
    "NonNegativeInt",
    "OpenFraction",
    "PathStr",
    "Positive",
    "PositiveInt",
    "Registry",
    "Seed",
    "Side",
    "WeightsStr",
    "enforce_bounds",
    "load_plugins",
    "note_import",
]
