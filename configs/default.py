"""Every field at its reference value: stage 2 of RAE (DiT^DH-XL on DINOv2-B latents), 256 px.

Other configs import this one and change values, so it lists all fields; their meaning, unit and
range are documented in rae_dit/config. To train the reference, use dit_dino.py.

Sources, cited at the values: [P] RAE paper, arXiv 2510.11690; [R] bytetriper/RAE repository,
configs/stage2/training/ImageNet256 unless another file is named; [H] facebook/
dinov2-with-registers-base on the Hugging Face hub; [O] our own choice, nothing to reproduce.
"""

import ml_collections
from ml_collections import config_dict

STEPS_PER_EPOCH = 1251  # 1,281,167 ImageNet images in batches of 1024, last one dropped [R]
STAGE1_STEPS_PER_EPOCH = 2502  # the same in batches of 512 [R]


def get_config() -> ml_collections.ConfigDict:
    """Returns all fields at their reference values."""
    config = ml_collections.ConfigDict()
    config.objective = "flow_matching"
    config.seed = 42  # [R]
    config.precision = "tf32"  # float32 storage, TF32 products: advised over bf16 [R]

    config.data = data = ml_collections.ConfigDict()
    data.source = "synthetic"  # dit_dino.py says how to set the path of ImageNet
    data.path = ""
    data.validation_path = ""
    data.crop = "adm_center"  # [R]; its stage 1 trains on 'random'
    data.max_bad_share = 0.001  # [O] ImageNet has none
    data.image_size = 256  # pixels
    data.num_classes = 1000
    data.batch_size = 1024  # [R]
    data.num_workers = 16  # [O]
    data.shuffle = "groups"  # [O] 'records' reads a row group of parquet files for every image
    data.flip = True  # [R]
    data.numeric_classes = False

    config.encoder = encoder = ml_collections.ConfigDict()
    encoder.family = "dinov2"
    encoder.pretrained = "facebook/dinov2-with-registers-base"  # [R]
    encoder.checkpoint = ""
    encoder.statistics = ""  # [R]: stats/dinov2/wReg_base/imagenet1k/stat.pt
    encoder.input_size = 224  # pixels; 256 resized to 224 gives 16 x 16 tokens [R]
    encoder.position_grid = 37  # 518 pixels [H]
    encoder.image_mean = (0.485, 0.456, 0.406)  # [H]
    encoder.image_std = (0.229, 0.224, 0.225)
    encoder.patch_size = 14  # [H], with the six below
    encoder.hidden_size = 768
    encoder.depth = 12
    encoder.num_heads = 12
    encoder.mlp_ratio = 4.0
    encoder.num_registers = 4
    encoder.layers = ()  # the last block alone [R]
    encoder.add_mean = False

    config.decoder = decoder = ml_collections.ConfigDict()
    decoder.pretrained = "nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08"  # [R], diffusers format
    decoder.pretrained_weights = "ema"  # [O]
    decoder.checkpoint = ""
    decoder.patch_size = 16  # 16 x 16 latent cells give 256 pixels [R]
    decoder.hidden_size = 1152  # ViT-XL, [R] configs/decoder/ViTXL, with the three below
    decoder.depth = 28
    decoder.num_heads = 16
    decoder.intermediate_size = 4096
    decoder.pixels = "normalized"  # [R]; RAEv2: "unit"
    decoder.noise_tau = 0.8  # [P], [R] configs/stage1/training/DINOv2-B_decXL.yaml
    decoder.train_constants = False  # [O]; its code trains them, as rae_dino.py does

    config.ddt = ddt = ml_collections.ConfigDict()
    ddt.pretrained = ""
    ddt.pretrained_weights = "ema"  # [O]
    ddt.checkpoint = ""
    ddt.patch_size = 1  # [P], [R], as all below
    ddt.hidden_size = (1152, 2048)
    ddt.depth = (28, 2)
    ddt.num_heads = (16, 16)
    ddt.mlp_ratio = 4.0
    ddt.class_dropout = 0.1
    ddt.train_constants = False  # [O]; its code trains them, as dit_dino.py does
    ddt.use_qknorm = False
    ddt.use_swiglu = True
    ddt.use_rope = True
    ddt.use_rmsnorm = True
    ddt.use_pos_embed = True
    ddt.conditioning = "adaln"
    ddt.time_tokens = 4  # of 'tokens' alone, RAEv2
    ddt.class_tokens = 8
    ddt.base_depth = 0
    ddt.interval_embedding = False

    config.flow = flow = ml_collections.ConfigDict()
    flow.time_distribution = "logit_normal"  # [R] main branch; older branches say uniform
    flow.shift = config_dict.placeholder(float)  # sqrt(16 * 16 * 768 / 4096) = 6.93 [P]
    flow.shift_base = 4096  # [P]
    flow.prediction = "v"  # [P]
    flow.base_weight = 1.0  # RAEv2; needs ddt.base_depth

    # Objectives 'trajectory' and 'mean_flow' [M]: sony/mf-rae at fffc544, arXiv 2511.13019
    config.few_step = few_step = ml_collections.ConfigDict()
    few_step.velocity = "teacher"
    few_step.teacher = ""
    few_step.guidance = "cfg"
    few_step.guide_checkpoint = ""
    few_step.cfg_scale = 1.0  # unguided [M]
    few_step.cfg_interval = (0.0, 1.0)
    few_step.solver_steps = 16  # points [M]
    few_step.solver_grid = "official"  # [M]
    few_step.pairs = 64  # of 120 [M], which draws with replacement
    few_step.interval_every = 4  # 25 % [M]
    few_step.adaptive_power = 1.0  # [M]
    few_step.adaptive_constant = 1e-3  # [O]; [M] 1e-3 beside a squared sum: in effect 0
    few_step.tangent_warmup_steps = 0  # [M]
    few_step.endpoint_samples = 64  # [O], with the next
    few_step.endpoint_steps = 50

    # Stage 1 beyond L1: off here, switched on by rae_dino.py. The values are the reference's, from
    # [R] configs/stage1/training/DINOv2-B_decXL.yaml unless another source is named.
    config.perceptual = perceptual = ml_collections.ConfigDict()
    perceptual.weight = 0.0  # 1.0
    perceptual.start = 0
    perceptual.start_epoch = config_dict.placeholder(float)  # 0; the steps are ImageNet's
    perceptual.vgg = ""
    perceptual.linear = ""

    config.gan = gan = ml_collections.ConfigDict()
    gan.weight = 0.0  # 0.75
    gan.start = 8 * STAGE1_STEPS_PER_EPOCH
    gan.discriminator_start = 6 * STAGE1_STEPS_PER_EPOCH
    gan.loss = "hinge"
    gan.fakes = "clean"  # as in its code: reconstructions in eval mode, without noise on tokens
    gan.augment_probability = 1.0
    gan.augment_translation = 0.125
    gan.augment_colour = True
    gan.augment_cutout = 0.0
    gan.learning_rate = 2e-4
    gan.warmup_steps = 1 * STAGE1_STEPS_PER_EPOCH
    gan.decay_end_step = 10 * STAGE1_STEPS_PER_EPOCH  # [O]: ends with the run; [R] stops at 10/16
    gan.start_epoch = config_dict.placeholder(float)  # 8; the steps above are ImageNet's
    gan.discriminator_start_epoch = config_dict.placeholder(float)  # 6
    gan.warmup_epochs = config_dict.placeholder(float)  # 1
    gan.decay_end_epoch = config_dict.placeholder(float)  # 10
    gan.final_learning_rate = 2e-5
    gan.beta1 = 0.9
    gan.beta2 = 0.95
    gan.epsilon = 1e-8
    gan.weight_decay = 0.0
    gan.clip_norm = config_dict.placeholder(float)  # as in its code: only the decoder is clipped
    gan.power_iteration = "per_pass"  # as in its code: torch iterates whenever a module is called

    config.discriminator = discriminator = ml_collections.ConfigDict()
    discriminator.features = "dino"
    discriminator.pretrained = ""  # [R]: discs/dino_vit_small_patch8_224.pth
    discriminator.input_size = 224
    discriminator.patch_size = 8
    discriminator.hidden_size = 384
    discriminator.depth = 12
    discriminator.num_heads = 6
    discriminator.mlp_ratio = 4.0
    discriminator.image_mean = (0.485, 0.456, 0.406)
    discriminator.image_std = (0.229, 0.224, 0.225)
    discriminator.layers = (11, 2, 5, 8, 11)  # as in its code: the last block has two heads
    discriminator.kernel_size = 9

    config.optim = optim = ml_collections.ConfigDict()
    optim.name = "adamw"
    optim.learning_rate = 2e-4  # [P], [R], as all below but where marked
    optim.warmup_steps = 40 * STEPS_PER_EPOCH
    optim.warmup_from_zero = False  # "warm-up" keeps the rate constant
    optim.decay = "linear"
    optim.decay_end_step = 800 * STEPS_PER_EPOCH
    optim.final_learning_rate = 2e-5
    optim.max_steps = 800 * STEPS_PER_EPOCH  # [P]; [R] goes on to 1400 epochs at the final rate
    optim.warmup_epochs = config_dict.placeholder(float)  # 40 [P]; the steps above are ImageNet's
    optim.decay_end_epoch = config_dict.placeholder(float)  # 800 [P]
    optim.max_epochs = config_dict.placeholder(float)  # 800 [P]
    optim.beta1 = 0.9
    optim.beta2 = 0.95
    optim.epsilon = 1e-8
    optim.momentum = 0.9  # [O]; unused by adamw; 0.95 for muon
    optim.weight_decay = 0.0
    optim.clip_norm = 1.0
    optim.max_consecutive_bad_steps = 50  # [O]
    optim.accumulate_steps = 1
    optim.spike_factor = config_dict.placeholder(float)  # [O] 2.0: a loss twice the recent median
    optim.spike_window = 20  # [O] logged losses
    optim.max_rollbacks = 3  # [O]

    config.ema = ema = ml_collections.ConfigDict()
    ema.decay = 0.9995  # [P], [R]

    config.compute = compute = ml_collections.ConfigDict()
    compute.attention = "auto"  # [O]
    compute.scan_layers = False  # [O] faster on GPU; True compiles faster on TPU
    compute.remat = "none"  # [O]
    compute.compile_cache = "~/.cache/rae_dit/jax"  # [O]

    config.sharding = sharding = ml_collections.ConfigDict()
    sharding.fsdp = 1  # [O]

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.save_every = 10 * STEPS_PER_EPOCH  # [R]
    checkpoint.keep_last = 3  # [O]
    checkpoint.keep_every = config_dict.placeholder(int)  # [O]
    checkpoint.best_metric = ""  # [O]
    checkpoint.best_mode = "min"  # [O]
    checkpoint.restore_from = ""

    config.metrics = metrics = ml_collections.ConfigDict()
    metrics.log_every = 100  # [O]
    metrics.telemetry = True  # [O]
    metrics.validate_every = 25_000  # [R] evaluates as often
    metrics.validate_batches = 8  # [O]
    metrics.evaluate_every = config_dict.placeholder(int)  # [R] 25,000
    metrics.evaluate_samples = 10_000  # [O]; [R] 50,000
    metrics.sample_every = config_dict.placeholder(int)  # [R] 2500
    metrics.profile_step = config_dict.placeholder(int)  # [O]
    metrics.profile_steps = 3  # [O]
    metrics.wandb_project = ""  # [O]

    config.sample = sample = ml_collections.ConfigDict()
    sample.num_samples = 16  # [O]
    sample.num_steps = 50  # [P], [R]: 50 points, 49 updates
    sample.method = "euler"  # [P], [R]
    sample.grid = "official"  # [R]
    sample.rtol = 1e-3  # [R]
    sample.atol = 1e-6  # [R]
    sample.diffusion_norm = 1.0  # [R]; its default form of w(t) is infinite at t = 1, SiT's is not
    sample.last_step = "mean"  # [R]
    sample.last_step_size = 0.04  # [R]
    sample.guidance = "cfg"  # [R]; [P] reports AutoGuidance by DiT^DH-S, cfg_scale 1.42
    sample.guide_checkpoint = ""
    sample.cfg_scale = 1.0  # unguided
    sample.cfg_interval = (0.0, 1.0)
    sample.internal_scale = 1.0  # RAEv2
    sample.internal_interval = (0.0, 1.0)
    sample.internal_null_scale = None
    sample.labels = ""
    sample.class_list = ""
    sample.class_names = ""
    sample.label_mode = "equal"  # [P]: 50 images of each class
    sample.precision = config_dict.placeholder(str)  # that of the config
    sample.batch_size = 16  # [O]
    sample.output_dir = ""
    sample.seed = 0  # [O]

    config.evaluate = evaluate = ml_collections.ConfigDict()
    evaluate.judge = "inception"  # [P], [R]
    evaluate.metrics = ("fid", "sfid", "inception_score", "precision", "recall")  # [P]
    evaluate.inception = ""
    evaluate.samples = ""
    evaluate.num_samples = 50_000  # [P], [R]
    evaluate.unguided = False  # [O]
    evaluate.reference = ""  # [P], [R]: VIRTUAL_imagenet256_labeled.npz of ADM
    evaluate.reference_cache = ""
    evaluate.batch_size = 256  # [O]
    evaluate.sample_batch_size = config_dict.placeholder(int)  # that of sample

    config.sweep = sweep = ml_collections.ConfigDict()
    sweep.cfg_scales = (1.0, 1.25, 1.5, 2.0)  # [O]
    sweep.num_steps = ()
    sweep.cfg_intervals = ()
    sweep.metric = ""

    config.reconstruct = reconstruct = ml_collections.ConfigDict()
    reconstruct.path = ""
    reconstruct.num_images = config_dict.placeholder(int)  # [R]: all 50,000 held-out images

    config.probe = probe = ml_collections.ConfigDict()
    probe.freeze_encoder = False  # [O]

    config.stats = stats = ml_collections.ConfigDict()
    stats.output = ""
    stats.save_every = 100  # [O]

    config.latents = latents = ml_collections.ConfigDict()
    latents.output = ""
    latents.storage = "bf16"  # [O]
    latents.images_per_shard = 8192  # [O]
    return config
