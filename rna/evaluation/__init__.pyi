from .questions import LETTERS as LETTERS
from .questions import prompt as prompt
