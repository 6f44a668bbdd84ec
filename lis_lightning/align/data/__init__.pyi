from .alignment_data import AlignmentData as AlignmentData
from .co_engagement import CoEngagement as CoEngagement
from .data_module import ExampleDataModule as ExampleDataModule
from .events import AlignmentEvents as AlignmentEvents
from .examples import Examples as Examples, hold_out as hold_out
from .hashing import mix_bits as mix_bits
from .images import load_image as load_image
from .interaction_log import load_log as load_log
from .item_table import ItemTable as ItemTable
from .movielens import load_movielens as load_movielens
from .vector_files import read_vectors as read_vectors
