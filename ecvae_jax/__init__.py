"""ecvae_jax: the equilibrium conditional VAE for face synthesis (Qian et al. 2018) in JAX/Flax.

It learns appearance (who, light, background) apart from structure (pose and expression, as landmarks), and draws any
appearance under any structure. The rooms, in the order in which a face passes through them; each imports only those
above it:

    config, files, progress, agreement   settings and defaults; atomic writes; progress; agreement among hosts
    images         float and 8-bit pixels, tiles, PNG files
    gaussian       Gaussians and their KL (Eq. 5)
    prior          the priors of Eqs. 2, 3 and 4; transport between them
    structure      landmark schemes, alignment, sketch, warps, clusters and their weights
    model          appearance encoder, structure U-Net, frames, conditioning on landmarks, initialization, `Model`
    objective      recon_nll + beta · kl
    data           photos to records, records to batches, the embedded rendered heads
    checkpoints    format, storing, integrity, loading, resuming
    training       state, step, its map over devices, the loop and its monitors
    synthesis      jitted batches, adaptation to one photo, the fitted density, grids
    export         small checkpoints, ONNX, StableHLO, safetensors
    evaluation     metrics, pairs with a true image, baselines, statistics
    comparison     priors and variants trained on equal terms, with intervals and a verdict
    figures        the paper's figures from a checkpoint, and its network
    plan           training step and synthesis compiled for an absent TPU: memory, work, predicted speed
    bench          training, synthesis, input and start-up timed on the machine at hand
    video          a driver's face tracked, its motion given to a source, MP4 and GIF
    serve          a page on this machine's port; the model behind an HTTP interface
    cli            the command `ecvae`

The names below are imported on first use: `import ecvae_jax` loads neither JAX nor TensorFlow.
"""

from etils import epy as _epy

__version__ = "0.1.0"

with _epy.lazy_api_imports(globals()):
    from ecvae_jax.checkpoints.load import load_model as load_model
    from ecvae_jax.config import AdaptConfig as AdaptConfig
    from ecvae_jax.config import Config as Config
    from ecvae_jax.data.batches import training_batches as training_batches
    from ecvae_jax.data.faces import Faces as Faces
    from ecvae_jax.data.faces import load_faces as load_faces
    from ecvae_jax.data.portraits import Portraits as Portraits
    from ecvae_jax.data.portraits import load_portraits as load_portraits
    from ecvae_jax.data.prepare.prepare import prepare as prepare
    from ecvae_jax.evaluation.protocol import evaluate as evaluate
    from ecvae_jax.gaussian import DiagGaussian as DiagGaussian
    from ecvae_jax.gaussian import kl_divergence as kl_divergence
    from ecvae_jax.images import save_png as save_png
    from ecvae_jax.model.conditioning import make_condition as make_condition
    from ecvae_jax.model.model import Model as Model
    from ecvae_jax.prior import equilibrium_prior as equilibrium_prior
    from ecvae_jax.prior import mixture_prior as mixture_prior
    from ecvae_jax.prior import standard_prior as standard_prior
    from ecvae_jax.prior import transport as transport
    from ecvae_jax.structure.sketch import draw_sketch as draw_sketch
    from ecvae_jax.synthesis.batches import decode as decode
    from ecvae_jax.synthesis.batches import encode as encode
    from ecvae_jax.synthesis.batches import reconstruct as reconstruct
    from ecvae_jax.synthesis.batches import sample as sample
    from ecvae_jax.synthesis.density import fit_density as fit_density
    from ecvae_jax.synthesis.transfer import interpolate as interpolate
    from ecvae_jax.synthesis.transfer import transfer as transfer
    from ecvae_jax.training.loop import train as train
