"""One thin binary for each verb; installed as `xdistil-<verb>`."""
