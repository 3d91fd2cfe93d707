"""One thin binary for each verb; installed as `xdistil-<verb>`."""

# Before any other module of ours: it imports TensorFlow without its greetings.
from xdistil_tf import command_line  # noqa: F401
