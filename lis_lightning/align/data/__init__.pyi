from .events import AlignmentEvents as AlignmentEvents
from .examples import ExampleDataModule as ExampleDataModule, Examples as Examples, hold_out as hold_out
from .items import ItemTable as ItemTable, load_image as load_image
from .sources import AlignmentData as AlignmentData, load_log as load_log, load_movielens as load_movielens
from .vectors import read_vectors as read_vectors
