from .folder import NO_CHAT as NO_CHAT
from .model import Decoder as Decoder
from .model import Deltas as Deltas
from .model import Stream as Stream
from .packing import Pack as Pack
from .packing import packer as packer
from .tokenizer import load_tokenizer as load_tokenizer
from .tokenizer import parts_alike as parts_alike
