from .loading import load_world as load_world
from .render import VOCABULARY as VOCABULARY
from .simulation import WorldParams as WorldParams
from .world import World as World, generate_world as generate_world, simulate_world as simulate_world
