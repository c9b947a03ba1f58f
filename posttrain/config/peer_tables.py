"""What other trainers call an option or a command, and what stands for it here.

The names are those of TRL 1.16 with transformers 5 and peft (and what TRL 0.11 and transformers 4 had beside them),
and of axolotl, LLaMA-Factory, Unsloth, verl, OpenRLHF (with its flags before the dotted ones) and tinker-cookbook, each
as its sources had them in 2026.
`docs/from-trl.md` shows the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ours:
    """What stands for a name of another trainer: options by the names of their fields, of which the first that a
    command has counts, and `words`: what to know about it, or why there is no such option."""

    fields: tuple[str, ...] = ()
    words: str = ""


def option(*fields: str, words: str = "") -> Ours:
    return Ours(fields, words)


def none(words: str) -> Ours:
    return Ours((), words)


PASSES = option("epochs", "max_steps")
WHOLE_STEP = none(
    "not needed: --batch-size is the whole step, and --micro-batch-tokens bounds what goes through the model at once"
)
PACKED = none("not needed: rows are always packed without padding, and do not see each other")
RECORDED = none("every step is in metrics.jsonl and drawn in report.html of the run folder; nothing is sent elsewhere")
FLOAT32 = none("models are trained in float32; there is no other precision and no quantisation in training")
NO_CHECKPOINTING = none("there is no recomputation of activations; a smaller --micro-batch-tokens needs less memory")
ONE_PROCESS = none("training runs in one process on one device, a GPU where torch finds one")
OWN_ENGINE = none("answers are sampled by the trainer's own engine; --max-concurrent says how many it decodes at once")
OWN_ATTENTION = none("attention and fused layers are chosen by the model's family; there is nothing to set")
ADAMW = none("the optimizer is AdamW with β 0.9 and 0.999; --learning-rate and --weight-decay can be set")
ADAPTER = none("--lora-rank above 0 trains an adapter, and without it all weights are trained")
PLAIN_LORA = none("adapters are on every linear layer, without dropout; --lora-rank and --lora-alpha can be set")
MERGED = none("a run with --lora-rank writes the merged weights to RUN/model and the adapter alone to RUN/adapter")
FITTING = none("not needed: prompts that leave no room for --max-new-tokens are left out and counted; --strict stops")
ANSWERS_ONLY = none("not needed: what the assistant says is trained, and of plain text every token")
METHOD = none("the method is the command: posttrain sft, dpo, rl, reward-model; posttrain --help lists them")
START = none("the reference is the model that the run begins from")
LEARNED = none("a reward model is a reward: --reward 'learned(MODEL)'")
TEMPLATE = option("chat_template", words="Without it the model's own writes the conversations")
NEW_FOLDER = none("a run folder is never overwritten: give a new --out, or --resume to continue")
WEIGHTED = none("a weight stands behind its name: --reward math=0.8 --reward format=0.2")
HUB_OPTIONS = none("options of a hub dataset stand in its name: --data 'owner/name?config=…&split=…'")
HELD_OUT = none(
    "a part of a file is held out by its name: --data 'FILE?split=train[:90%]' --eval-data 'FILE?split=train[90%:]' "
    "--eval-every STEPS"
)
SAMPLING = none("sampling has --temperature, --top-p and --top-k")
PUBLISH = none("nothing is uploaded; RUN/model is a folder as transformers writes it: hf upload owner/name RUN/model")
FIRST_ROWS = option("limit", words="A share of the rows is --data 'FILE*0.3'")
ROLLOUTS = option("batch_size", words="It counts rollouts: prompts times --group-size")
UPDATES_PER_BATCH = option("updates_per_batch", words="Passes over one batch of rollouts")
EPOCHS_OF_OPENRLHF = option(
    "updates_per_batch", "epochs", "max_steps", words="In rl, passes over one batch of rollouts"
)
UPDATES = option("minibatches", words="It is the number of optimizer steps in a pass over a batch")
WARMUP = option("warmup_steps", words="It is a number of steps")
COLUMNS = option("columns", words="As in prompt=question,completion=answer")
END_TOKEN = none("not needed: an answer ends as the chat template writes it, and rows are packed without padding")
SHUFFLED = none("not needed: rows are shuffled anew in every pass, by --seed")
LAYERS = none("layers cannot be chosen: all weights are trained, or with --lora-rank adapters on every linear layer")
SFT_LOSS = none("a loss is added by its name: --loss sigmoid --loss sft=0.2")

TRAINERS: Mapping[str, Sequence[tuple[Ours, str]]] = {
    "TRL, transformers and peft": (
        (option("model"), "model_name_or_path"),
        (option("out"), "output_dir"),
        (option("data"), "dataset_name datasets train_file"),
        (option("eval_data"), "validation_file"),
        (HUB_OPTIONS, "dataset_config dataset_train_split dataset_test_split"),
        (COLUMNS, "dataset_text_field"),
        (METHOD, "do_train"),
        (SHUFFLED, "shuffle_dataset"),
        (none("not needed: the rows of a file are read when a run begins"), "streaming dataset_streaming"),
        (PASSES, "num_train_epochs"),
        (option("batch_size", words="It is the whole step"), "per_device_train_batch_size"),
        (option("batch_size", words="It counts rollouts"), "generation_batch_size"),
        (option("micro_batch_tokens", "max_concurrent"), "per_device_eval_batch_size"),
        (WHOLE_STEP, "gradient_accumulation_steps auto_find_batch_size"),
        (PACKED, "packing packing_strategy padding_free eval_packing pad_to_multiple_of train_sampling_strategy"),
        (option("schedule"), "lr_scheduler_type"),
        (WARMUP, "warmup_ratio"),
        (END_TOKEN, "eos_token pad_token"),
        (ADAMW, "optim optim_args adam_beta1 adam_beta2 adam_epsilon"),
        (option("max_length"), "max_seq_length"),
        (FITTING, "max_prompt_length truncation_mode"),
        (ANSWERS_ONLY, "completion_only_loss assistant_only_loss"),
        (option("loss", "algorithm"), "loss_type"),
        (none("a weight stands behind its name: --loss sigmoid --loss sft=0.2"), "loss_weights"),
        (SFT_LOSS, "rpo_alpha"),
        (none("DPO's divergence is the reverse KL; other losses are --loss NAME"), "f_divergence_type"),
        (START, "ref_model precompute_ref_log_probs"),
        (option("reference_every"), "sync_ref_model ref_model_sync_steps"),
        (option("reference_mix"), "ref_model_mixup_alpha"),
        (option("centre_coefficient"), "center_rewards_coefficient"),
        (option("reward"), "reward_funcs"),
        (LEARNED, "reward_model_name_or_path reward_model_path"),
        (WEIGHTED, "reward_weights"),
        (option("aggregation"), "multi_objective_aggregation"),
        (option("group_size"), "num_generations"),
        (option("max_new_tokens"), "max_completion_length"),
        (SAMPLING, "min_p repetition_penalty generation_kwargs"),
        (UPDATES_PER_BATCH, "num_iterations num_ppo_epochs"),
        (UPDATES, "steps_per_generation"),
        (option("clip"), "epsilon cliprange"),
        (option("clip_high"), "epsilon_high"),
        (option("dual_clip"), "delta"),
        (option("value_clip"), "cliprange_value"),
        (option("gae_lambda"), "lam"),
        (option("beta"), "kl_coef"),
        (option("surrogate"), "importance_sampling_level"),
        (option("scale"), "scale_rewards"),
        (
            none("cut answers are counted as `truncated`; --overlong-share makes them cost"),
            "mask_truncated_completions",
        ),
        (option("entropy_bonus"), "entropy_coef"),
        (option("mismatch"), "vllm_importance_sampling_correction vllm_importance_sampling_mode"),
        (option("mismatch_limit"), "vllm_importance_sampling_clip_max vllm_importance_sampling_cap"),
        (none("every sampled token is trained"), "top_entropy_quantile"),
        (option("env", words="Tools are methods of its class"), "environment_factory tools"),
        (option("max_turns"), "max_tool_calling_iterations"),
        (OWN_ENGINE, "use_vllm vllm_mode vllm_gpu_memory_utilization vllm_server_host vllm_tensor_parallel_size"),
        (option("save_every"), "save_steps save_strategy"),
        (option("keep"), "save_total_limit"),
        (option("eval_every"), "eval_steps eval_strategy"),
        (option("patience"), "load_best_model_at_end metric_for_best_model"),
        (TEMPLATE, "chat_template_path"),
        (none("chat templates get no options"), "chat_template_kwargs"),
        (option("resume"), "resume_from_checkpoint"),
        (NEW_FOLDER, "overwrite_output_dir"),
        (RECORDED, "report_to run_name logging_steps logging_strategy logging_dir log_completions"),
        (PUBLISH, "push_to_hub hub_model_id hub_strategy"),
        (FLOAT32, "bf16 fp16 tf32 dtype torch_dtype load_in_4bit load_in_8bit bnb_4bit_quant_type"),
        (NO_CHECKPOINTING, "gradient_checkpointing gradient_checkpointing_kwargs activation_offloading"),
        (ONE_PROCESS, "deepspeed fsdp fsdp_config accelerator_config local_rank use_cpu"),
        (OWN_ATTENTION, "attn_implementation use_liger_kernel torch_compile"),
        (none("dropout is always off"), "disable_dropout"),
        (none("there is no noise on embeddings"), "neftune_noise_alpha"),
        (none("not needed: all columns of the data go to the reward"), "remove_unused_columns"),
        (
            none("not needed: rows are read and encoded in the trainer's process"),
            "dataset_num_proc dataloader_num_workers",
        ),
        (option("seed"), "data_seed"),
        (ADAPTER, "use_peft peft_config"),
        (option("lora_rank"), "lora_r r"),
        (PLAIN_LORA, "lora_dropout lora_target_modules lora_modules_to_save target_modules use_rslora use_dora"),
    ),
    "axolotl": (
        (option("model"), "base_model"),
        (option("eval_data"), "test_datasets"),
        (HELD_OUT, "val_set_size"),
        (none("not needed: rows are encoded when a run begins"), "dataset_prepared_path"),
        (PASSES, "num_epochs"),
        (WHOLE_STEP, "micro_batch_size"),
        (option("learning_rate"), "lr"),
        (option("schedule"), "lr_scheduler"),
        (none("linear and cosine end at a tenth of the rate"), "cosine_min_lr_ratio"),
        (ADAMW, "optimizer"),
        (option("max_length"), "sequence_len"),
        (
            none("rows that are longer than --max-length are cut, counted and reported"),
            "excess_length_strategy",
        ),
        (END_TOKEN, "special_tokens"),
        (COLUMNS, "field_messages"),
        (LAYERS, "unfrozen_parameters"),
        (PACKED, "sample_packing pad_to_sequence_len group_by_length eval_sample_packing"),
        (ANSWERS_ONLY, "train_on_inputs roles_to_train"),
        (METHOD, "rl"),
        (option("beta"), "rl_beta orpo_alpha"),
        (option("loss"), "dpo_loss_type"),
        (option("label_smoothing"), "dpo_label_smoothing"),
        (option("gamma"), "simpo_gamma"),
        (option("desirable_weight"), "kto_desirable_weight"),
        (option("undesirable_weight"), "kto_undesirable_weight"),
        (option("save_every"), "saves_per_epoch"),
        (option("eval_every"), "evals_per_epoch"),
        (option("patience"), "early_stopping_patience"),
        (option("resume"), "auto_resume_from_checkpoints"),
        (RECORDED, "wandb_project wandb_name wandb_entity use_wandb use_tensorboard use_mlflow"),
        (ADAPTER, "adapter"),
        (MERGED, "merge_lora"),
        (PLAIN_LORA, "lora_target_linear peft_use_dora peft_use_rslora"),
        (OWN_ATTENTION, "flash_attention sdp_attention xformers_attention flex_attention"),
    ),
    "LLaMA-Factory": (
        (METHOD, "stage"),
        (ADAPTER, "finetuning_type"),
        (option("data"), "dataset dataset_dir"),
        (HELD_OUT, "val_size"),
        (none("every answer of a conversation is trained"), "mask_history"),
        (LAYERS, "freeze_trainable_layers"),
        (FIRST_ROWS, "max_samples"),
        (TEMPLATE, "template"),
        (option("max_length"), "cutoff_len"),
        (PACKED, "neat_packing"),
        (ANSWERS_ONLY, "train_on_prompt"),
        (PLAIN_LORA, "lora_target additional_target"),
        (option("beta"), "pref_beta"),
        (option("loss"), "pref_loss"),
        (SFT_LOSS, "pref_ftx"),
        (option("desirable_weight"), "kto_chosen_weight"),
        (option("undesirable_weight"), "kto_rejected_weight"),
        (LEARNED, "reward_model"),
        (UPDATES_PER_BATCH, "ppo_epochs"),
        (option("kl_target"), "ppo_target"),
        (option("whiten_rewards"), "ppo_whiten_rewards"),
        (option("patience"), "early_stopping_steps"),
        (RECORDED, "plot_loss use_swanlab"),
        (FLOAT32, "quantization_bit pure_bf16"),
        (NO_CHECKPOINTING, "disable_gradient_checkpointing"),
        (OWN_ATTENTION, "flash_attn enable_liger_kernel use_unsloth"),
        (OWN_ENGINE, "infer_backend"),
        (MERGED, "export_dir"),
    ),
    "Unsloth": (
        (option("model"), "model_name"),
        (none("without --lora-rank all weights are trained"), "full_finetuning"),
        (option("lora_rank"), "max_lora_rank"),
        (option("seed"), "random_state"),
        (FLOAT32, "load_in_16bit"),
        (NO_CHECKPOINTING, "use_gradient_checkpointing"),
        (OWN_ENGINE, "fast_inference gpu_memory_utilization"),
        (MERGED, "save_method save_pretrained_merged"),
    ),
    "verl": (
        (option("model"), "actor_rollout_ref.model.path model.partial_pretrain"),
        (option("data"), "data.train_files"),
        (option("eval_data"), "data.val_files"),
        (SHUFFLED, "data.shuffle"),
        (
            none("a recipe evaluates its start before all else, and posttrain eval any model"),
            "trainer.val_before_train",
        ),
        (FIRST_ROWS, "data.train_max_samples"),
        (COLUMNS, "data.prompt_key data.response_key"),
        (FITTING, "data.max_prompt_length data.filter_overlong_prompts data.truncation"),
        (option("max_new_tokens"), "data.max_response_length actor_rollout_ref.rollout.response_length"),
        (ROLLOUTS, "data.train_batch_size"),
        (UPDATES, "actor_rollout_ref.actor.ppo_mini_batch_size"),
        (
            WHOLE_STEP,
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu actor_rollout_ref.actor.ppo_micro_batch_size "
            "data.micro_batch_size_per_gpu actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
        ),
        (option("micro_batch_tokens"), "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"),
        (PACKED, "actor_rollout_ref.actor.use_dynamic_bsz actor_rollout_ref.model.use_remove_padding"),
        (option("learning_rate"), "actor_rollout_ref.actor.optim.lr optim.lr"),
        (option("critic_learning_rate"), "critic.optim.lr"),
        (WARMUP, "actor_rollout_ref.actor.optim.lr_warmup_steps actor_rollout_ref.actor.optim.lr_warmup_steps_ratio"),
        (option("schedule"), "actor_rollout_ref.actor.optim.lr_scheduler_type"),
        (option("max_grad_norm"), "actor_rollout_ref.actor.grad_clip optim.clip_grad"),
        (UPDATES_PER_BATCH, "actor_rollout_ref.actor.ppo_epochs critic.ppo_epochs"),
        (option("clip"), "actor_rollout_ref.actor.clip_ratio actor_rollout_ref.actor.clip_ratio_low"),
        (option("clip_high"), "actor_rollout_ref.actor.clip_ratio_high"),
        (option("dual_clip"), "actor_rollout_ref.actor.clip_ratio_c"),
        (option("value_clip"), "critic.cliprange_value"),
        (option("normalisation"), "actor_rollout_ref.actor.loss_agg_mode"),
        (option("surrogate"), "actor_rollout_ref.actor.policy_loss.loss_mode"),
        (option("entropy_bonus"), "actor_rollout_ref.actor.entropy_coeff"),
        (
            option("kl_in", words="A --beta above 0 switches the KL on"),
            "actor_rollout_ref.actor.use_kl_loss algorithm.use_kl_in_reward",
        ),
        (option("beta"), "algorithm.kl_ctrl.kl_coef actor_rollout_ref.actor.kl_loss_coef"),
        (option("kl_estimator"), "actor_rollout_ref.actor.kl_loss_type algorithm.kl_penalty"),
        (option("kl_target"), "algorithm.kl_ctrl.target_kl algorithm.kl_ctrl.type"),
        (option("group_size"), "actor_rollout_ref.rollout.n"),
        (option("temperature"), "actor_rollout_ref.rollout.temperature"),
        (option("samples"), "actor_rollout_ref.rollout.val_kwargs.n"),
        (
            OWN_ENGINE,
            "actor_rollout_ref.rollout.name actor_rollout_ref.rollout.gpu_memory_utilization "
            "actor_rollout_ref.rollout.tensor_model_parallel_size",
        ),
        (option("env"), "actor_rollout_ref.rollout.multi_turn.enable"),
        (option("max_turns"), "actor_rollout_ref.rollout.multi_turn.max_assistant_turns"),
        (PLAIN_LORA, "actor_rollout_ref.model.target_modules"),
        (NO_CHECKPOINTING, "actor_rollout_ref.model.enable_gradient_checkpointing"),
        (option("algorithm"), "algorithm.adv_estimator"),
        (option("gae_lambda"), "algorithm.lam"),
        (option("scale"), "algorithm.norm_adv_by_std_in_grpo"),
        (option("mismatch"), "algorithm.rollout_correction.rollout_is"),
        (option("mismatch_limit"), "algorithm.rollout_correction.rollout_is_threshold"),
        (
            option("reward", words="A function is file.py:function"),
            "custom_reward_function.path custom_reward_function.name",
        ),
        (LEARNED, "reward_model.model.path reward_model.enable"),
        (PASSES, "trainer.total_epochs"),
        (option("max_steps"), "trainer.total_training_steps"),
        (option("save_every"), "trainer.save_freq"),
        (option("eval_every"), "trainer.test_freq"),
        (option("keep"), "trainer.max_actor_ckpt_to_keep trainer.max_ckpt_to_keep"),
        (option("out"), "trainer.default_local_dir"),
        (option("resume"), "trainer.resume_mode trainer.resume_from_path"),
        (RECORDED, "trainer.project_name trainer.experiment_name trainer.logger"),
        (ONE_PROCESS, "trainer.n_gpus_per_node trainer.nnodes actor_rollout_ref.actor.strategy"),
    ),
    "OpenRLHF": (
        (option("model"), "pretrain"),
        (option("data"), "data.prompt_dataset prompt_data"),
        (option("eval_data"), "eval.dataset eval_dataset"),
        (COLUMNS, "data.input_key input_key data.prompt_key data.chosen_key data.rejected_key output_key"),
        (option("max_length"), "data.max_len max_len"),
        (FITTING, "prompt_max_len"),
        (option("max_new_tokens"), "generate_max_len"),
        (TEMPLATE, "data.apply_chat_template apply_chat_template data.input_template input_template"),
        (option("group_size"), "rollout.n_samples_per_prompt n_samples_per_prompt"),
        (ROLLOUTS, "rollout.batch_size rollout_batch_size"),
        (option("batch_size"), "train_batch_size"),
        (WHOLE_STEP, "train.micro_batch_size micro_train_batch_size rollout.micro_batch_size micro_rollout_batch_size"),
        (
            option("updates_per_batch", "epochs", "max_steps", words="In rl it is passes over a batch of rollouts"),
            "train.max_epochs max_epochs",
        ),
        (PASSES, "train.num_episodes num_episodes"),
        (option("learning_rate"), "actor.adam.lr adam.lr actor_learning_rate"),
        (option("critic_learning_rate"), "critic.adam.lr"),
        (option("weight_decay"), "l2"),
        (WARMUP, "lr_warmup_ratio actor.lr_warmup_ratio"),
        (option("max_grad_norm"), "max_norm actor.max_norm"),
        (option("clip"), "actor.eps_clip eps_clip"),
        (option("clip_high"), "actor.eps_clip_low_high eps_clip_low_high"),
        (option("gae_lambda"), "algo.advantage.lambd lambd"),
        (option("algorithm"), "algo.advantage.estimator advantage_estimator"),
        (option("scale"), "algo.advantage.no_std_norm no_advantage_std_norm"),
        (option("mismatch"), "algo.advantage.is_correction_enable enable_vllm_is_correction"),
        (option("beta"), "algo.kl.init_coef init_kl_coef"),
        (option("kl_target"), "algo.kl.target algo.kl.horizon kl_horizon"),
        (option("kl_estimator"), "algo.kl.estimator"),
        (option("kl_in", words="A --beta above 0 switches the KL on"), "algo.kl.use_loss"),
        (option("max_refills"), "algo.dynamic_filtering_enable dynamic_filtering"),
        (option("overlong_share"), "reward.overlong_buffer_len overlong_buffer_len"),
        (option("entropy_bonus"), "entropy_loss_coef"),
        (option("surrogate"), "actor.policy_loss_type policy_loss_type"),
        (option("ptx_coefficient"), "ptx_coef"),
        (option("ptx_data"), "pretrain_data"),
        (LEARNED, "reward.model_name_or_path reward_pretrain"),
        (option("reward", words="A function is file.py:function"), "reward.remote_url remote_rm_url"),
        (option("env"), "train.agent_func_path agent_func_path"),
        (SFT_LOSS, "model.nll_loss_coef nll_loss_coef"),
        (option("lora_rank"), "ds.lora.rank"),
        (option("lora_alpha"), "ds.lora.alpha"),
        (PACKED, "ds.packing_samples packing_samples train.dynamic_batch_enable"),
        (ONE_PROCESS, "ds.zero_stage zero_stage ds.adam_offload adam_offload train.colocate_all colocate_all_models"),
        (OWN_ENGINE, "vllm.num_engines vllm_num_engines vllm.sync_backend vllm_sync_backend"),
        (none("sampling and training take turns"), "train.async_enable async_train"),
        (option("keep"), "ckpt.max_num max_ckpt_num"),
        (option("resume"), "ckpt.load_enable load_checkpoint"),
        (option("out"), "save_path ckpt_path"),
        (RECORDED, "logger.wandb.project logger.wandb.key"),
    ),
    "tinker-cookbook": (
        (option("out"), "log_path"),
        (option("max_new_tokens"), "max_tokens"),
        (ROLLOUTS, "groups_per_batch"),
        (option("schedule"), "lr_schedule"),
        (option("beta"), "dpo_beta"),
        (option("beta", words="Beside --kl-in reward"), "kl_penalty_coef"),
        (UPDATES, "num_substeps"),
        (option("surrogate"), "loss_fn"),
        (option("max_refills"), "remove_constant_reward_groups"),
        (TEMPLATE, "renderer_name"),
        (ANSWERS_ONLY, "train_on_what"),
        (START, "reference_model_name"),
        (option("model", words="A run begins from any model or run folder"), "load_checkpoint_path"),
        (NEW_FOLDER, "behavior_if_log_dir_exists"),
    ),
}
"""What stands here for each name of another trainer. Names that are the same everywhere are left out."""
COMMANDS: Mapping[str, str] = {
    "train": "say how: posttrain sft, posttrain dpo or posttrain rl, or posttrain run FILE.yaml for a recipe",
    "finetune": "did you mean posttrain sft?",
    "pretrain": "plain text is trained on by posttrain sft, with rows that have a `text`",
    "reward": "did you mean posttrain reward-model?",
    "rm": "did you mean posttrain reward-model?",
    "distillation": "did you mean posttrain distill?",
    "gkd": "did you mean posttrain distill?",
    "evaluate": "did you mean posttrain eval?",
    "generate": "did you mean posttrain sample?",
    "preprocess": "not needed; posttrain check-data --model MODEL shows what training would read",
    "merge": MERGED.words,
    "merge-lora": MERGED.words,
    "export": MERGED.words,
    "serve": "there is no server here; RUN/model is a folder as transformers writes it: vllm serve RUN/model",
    "vllm-serve": "there is no server here; RUN/model is a folder as transformers writes it: vllm serve RUN/model",
    "inference": "did you mean posttrain chat, or posttrain sample for answers to a file of tasks?",
}
"""What to say of a command of another trainer: TRL's, axolotl's and LLaMA-Factory's, and plain words for them."""
