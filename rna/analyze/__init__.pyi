from .draw import TITLES as TITLES
