"""Chat templates with the structure of published ones, written for these tests: what each reads, writes and refuses."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models as token_models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast


def save_model(folder: Path, tokens: Sequence[str] = (), template: str | None = None) -> str:
    """Write a random model whose byte-level tokenizer has these added tokens and no others, and return its folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(token_models.BPE({piece: i for i, piece in enumerate(["<eos>", *alphabet])}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = template
    AutoModelForCausalLM.from_config(GPT2Config(vocab_size=270, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

QWEN3 = (
    _TURNS
    + """{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""
)
"""The model thinks unless enable_thinking is false; then the prompt ends in an empty block of thinking."""

QWQ = _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
"""The prompt opens the thinking."""

SMOLLM3 = """
{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}
{%- set mode = '/think' if enable_thinking else '/no_think' %}
{%- set custom = '' %}
{%- if messages[0].role == 'system' %}
{%- if '/no_think' in messages[0].content %}{% set mode = '/no_think' %}{% endif %}
{%- set custom = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() %}
{%- endif %}
{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' ~ strftime_now('%d %B %Y') ~ '\nReasoning Mode: ' ~ mode }}
{{- '\n\n## Custom Instructions\n\n' ~ (custom if custom else 'You are a helpful assistant.') ~ '<|im_end|>\n' }}
{%- for m in messages if m.role == 'user' %}{{ '<|im_start|>user\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"""
"""A system turn that may hold the switch, and today's date."""

GPT_OSS = """
{%- set effort = reasoning_effort if reasoning_effort is defined else 'medium' %}
{{- '<|start|>system<|message|>' ~ (model_identity or 'You are a language model.') }}
{{- '\nCurrent date: ' ~ strftime_now('%Y-%m-%d') ~ '\n\nReasoning: ' ~ effort }}
{{- '\n\n# Valid channels: analysis, commentary, final.<|end|>' }}
{%- for m in messages %}
{%- if m.role == 'system' %}{{ '<|start|>developer<|message|># Instructions\n\n' ~ m.content ~ '<|end|>' }}
{%- else %}{{ '<|start|>' ~ m.role ~ '<|message|>' ~ m.content ~ '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""
"""Efforts and channels; the system turn becomes a developer's."""

R1 = """{{ bos_token }}
{%- for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}
{%- for m in messages if m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"""
"""The prompt opens the thinking, and the system turn stands bare at the start."""

MAGISTRAL = """
{%- set usual = 'First draft your thinking. Follow this form:[THINK]Your thoughts[/THINK]Here, give your answer.' %}
{%- set told = messages[0].content if messages[0].role == 'system' else usual %}
{{- bos_token ~ '[SYSTEM_PROMPT]' ~ told ~ '[/SYSTEM_PROMPT]' }}
{%- for m in messages if m.role == 'user' %}{{ '[INST]' ~ m.content ~ '[/INST]' }}{% endfor %}"""
"""Its own system prompt names both tags, unless another one is given."""

DEEPSEEK_V31 = """{%- if thinking is not defined %}{% set thinking = false %}{% endif %}
{{- bos_token }}
{%- for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}
{%- for m in messages if m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' ~ ('<think>' if thinking else '</think>') }}{% endif %}"""
"""Off, the prompt holds a closing tag alone."""

GLM_45 = """[gMASK]<sop>
{%- for m in messages %}
{%- if m.role == 'user' %}
{{- '<|user|>\n' ~ m.content ~ ('/nothink' if enable_thinking is defined and not enable_thinking else '') }}
{%- else %}{{ '<|system|>\n' ~ m.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}{% endif %}"""
"""Off, the question ends in a switch and the prompt in an empty block."""

GRANITE_32 = """
{%- if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set turns = messages %}{% set told = 'Knowledge Cutoff Date: April 2024.' %}
{%- if thinking %}
{%- set told = told ~ " Write your thoughts after 'Here is my thought process:' and your response after " %}
{%- set told = told ~ "'Here is my response:' for each user query." %}{% endif %}{% endif %}
{{- '<|start_of_role|>system<|end_of_role|>' ~ told ~ '<|end_of_text|>\n' }}
{%- for m in turns %}{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ m.content ~ '<|end_of_text|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"""
"""Thinking is marked by sentences, which the system prompt names."""

LLAMA_3 = """{{ bos_token }}
{%- if not date_string is defined %}
{%- if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}
{%- else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}
{%- if messages[0].role == 'system' %}{% set told = messages[0].content | trim %}{% set turns = messages[1:] %}
{%- else %}{% set told = '' %}{% set turns = messages %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' ~ date_string ~ '\n\n' ~ told ~ '<|eot_id|>' }}
{%- for m in turns %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
"""A date that is an argument."""

GEMMA_2 = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{{ '<start_of_turn>' ~ m.role ~ '\n' ~ m.content ~ '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
"""Refuses a system turn."""

DROPS_SYSTEM = """{%- if messages[0].role != 'system' %}{{ 'Be helpful.\n' }}{% endif %}
{%- for m in messages if m.role == 'user' %}{{ '[' ~ m.content ~ ']' }}{% endfor %}"""
"""Drops a system turn without a word."""

ORZ = """{%- for m in messages if m.role == 'user' %}
{{- 'A conversation. The reasoning is enclosed within <think> </think> and the answer within <answer> </answer>' }}
{{- ' tags, as in <think> reasoning </think> <answer> answer </answer>. User: ' ~ m.content ~ '\nAssistant: <think>' }}
{%- endfor %}"""
"""Open-Reasoner-Zero: the prompt names all tags, then opens the thinking."""

GEMMA_4 = """{{ bos_token }}
{%- if enable_thinking is defined and enable_thinking %}{{ '<|turn>system\n<|think|><turn|>\n' }}{% endif %}
{%- for m in messages %}{{ '<|turn>' ~ m.role ~ '\n' ~ m.content ~ '<turn|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn>model\n' }}
{%- if not enable_thinking | default(false) %}{{ '<|channel>thought\n<channel|>' }}{% endif %}{% endif %}"""
"""Off unless it is switched on; off, the prompt holds an empty channel."""
