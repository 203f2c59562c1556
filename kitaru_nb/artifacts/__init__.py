"""Values that last: typed, content-addressed, exactly what was written."""

from kitaru_nb.artifacts.preview import preview
from kitaru_nb.artifacts.protocol import Dumped, Serializer, Unfit, Unreadable
from kitaru_nb.artifacts.serializers import register_serializer
from kitaru_nb.artifacts.store import ArtifactStore

__all__ = ["ArtifactStore", "Dumped", "Serializer", "Unfit", "Unreadable", "preview", "register_serializer"]
