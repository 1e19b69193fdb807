from .results import Record as Record
