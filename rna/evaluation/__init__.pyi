from .answers import Answers as Answers
from .questions import LETTERS as LETTERS
from .questions import prompt as prompt
from .subject import Subject as Subject
