"""Bugs in the equipment, which the chapters' list (`mutants.py`) does not plant.

python tests/programs/campaign/bugs.py --list tests/programs/campaign/mutants_equipment.py
"""

from mutants_augmentation import AUGMENTATION
from mutants_data import DATA
from mutants_evaluation import EVALUATION
from mutants_formats import FORMATS
from mutants_models import MODELS
from mutants_options import OPTIONS
from mutants_outside import OUTSIDE
from mutants_outside2 import OUTSIDE2
from mutants_pictures import PICTURES
from mutants_runs import RUNS
from mutants_training import TRAINING
from mutants_views import VIEWS

EARLIER = EVALUATION + PICTURES + TRAINING + AUGMENTATION + DATA
MUTANTS = EARLIER + FORMATS + RUNS + MODELS + VIEWS + OUTSIDE + OUTSIDE2 + OPTIONS
