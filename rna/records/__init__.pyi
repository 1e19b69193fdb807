from .listing import trials as trials
