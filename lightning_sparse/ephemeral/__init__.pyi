from .activations import activations_of as activations_of
from .rules import boosted as boosted
from .rules import winners as winners
from .selection import Selection as Selection
