from .loading import load_world as load_world
from .physics import WorldParams as WorldParams
from .render import VOCABULARY as VOCABULARY
from .world import World as World, generate_world as generate_world, simulate_world as simulate_world
