from .folder import NO_CHAT as NO_CHAT
from .model import Decoder as Decoder
from .model import Deltas as Deltas
from .model import Stream as Stream
