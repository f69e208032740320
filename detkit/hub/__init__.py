"""Files by name or address: weights of publishers, hub repositories, web addresses, object stores; one cache."""

from __future__ import annotations

from detkit.hub.sources import is_remote as is_remote
from detkit.hub.sources import local_path as local_path
from detkit.hub.sources import path_manager as path_manager
