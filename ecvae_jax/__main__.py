"""`python -m ecvae_jax` is the command `ecvae`."""

import sys

from ecvae_jax.cli.main import main

sys.exit(main())
