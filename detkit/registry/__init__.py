"""Registries: a name in a config file -> the class that it builds. Plugins import from here.

    from detkit.registry import BACKBONES

    @BACKBONES.register()
    class MyNet(Backbone):
        def __init__(self, *, width: int = 64) -> None: ...

The constructor is the schema: keyword-only, annotated. Registering is all a plugin does; its module gets
imported through `imports:` in the config or the entry-point group `detkit.plugins`. Bounds are types, too: `Fraction`,
`NonNegative` and the others of `detkit.registry.bounds`.
"""

from detkit.registry.arguments import enforce_bounds as enforce_bounds
from detkit.registry.bounds import Channels as Channels
from detkit.registry.bounds import Fraction as Fraction
from detkit.registry.bounds import FractionAboveZero as FractionAboveZero
from detkit.registry.bounds import FractionBelowOne as FractionBelowOne
from detkit.registry.bounds import Layers as Layers
from detkit.registry.bounds import NonNegative as NonNegative
from detkit.registry.bounds import NonNegativeInt as NonNegativeInt
from detkit.registry.bounds import OpenFraction as OpenFraction
from detkit.registry.bounds import Positive as Positive
from detkit.registry.bounds import PositiveInt as PositiveInt
from detkit.registry.bounds import Seed as Seed
from detkit.registry.bounds import Side as Side
from detkit.registry.nested import AssignerNode as AssignerNode
from detkit.registry.nested import BoxLossNode as BoxLossNode
from detkit.registry.nested import BoxWeightNode as BoxWeightNode
from detkit.registry.nested import ClassLossNode as ClassLossNode
from detkit.registry.nested import DatasetNode as DatasetNode
from detkit.registry.parts import ANCHORS as ANCHORS
from detkit.registry.parts import ASSIGNERS as ASSIGNERS
from detkit.registry.parts import AUXILIARY_LOSSES as AUXILIARY_LOSSES
from detkit.registry.parts import BACKBONES as BACKBONES
from detkit.registry.parts import BOX_LOSSES as BOX_LOSSES
from detkit.registry.parts import BOX_WEIGHTS as BOX_WEIGHTS
from detkit.registry.parts import CLASS_LOSSES as CLASS_LOSSES
from detkit.registry.parts import CODERS as CODERS
from detkit.registry.parts import DATASETS as DATASETS
from detkit.registry.parts import HEADS as HEADS
from detkit.registry.parts import HOOKS as HOOKS
from detkit.registry.parts import LOGGERS as LOGGERS
from detkit.registry.parts import NECKS as NECKS
from detkit.registry.parts import NMS as NMS
from detkit.registry.parts import NORMALIZERS as NORMALIZERS
from detkit.registry.parts import OPTIMIZERS as OPTIMIZERS
from detkit.registry.parts import QUALITY_LOSSES as QUALITY_LOSSES
from detkit.registry.parts import REGISTRIES as REGISTRIES
from detkit.registry.parts import SCHEDULES as SCHEDULES
from detkit.registry.parts import TRANSFORMS as TRANSFORMS
from detkit.registry.path_types import AddressStr as AddressStr
from detkit.registry.path_types import PathStr as PathStr
from detkit.registry.path_types import WeightsStr as WeightsStr
from detkit.registry.plugins import PLUGIN_GROUP as PLUGIN_GROUP
from detkit.registry.plugins import load_plugins as load_plugins
from detkit.registry.plugins import note_import as note_import
from detkit.registry.registry import Registry as Registry
