"""Chat templates as models bring them: what each of them does differently is what can go wrong."""

PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + PLAIN
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_BREAK = (
    "{% for m in messages %}{{ m['role'] + ':' + (' ' if m['role'] != 'system' else '') + m['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
STRIPS_THINKING = (
    "{% for m in messages %}{% set said = m['content'] if loop.last else m['content'].split('</think>')[-1] %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALWAYS_STRIPS = STRIPS_THINKING.replace("m['content'] if loop.last else ", "")
COUNTS_TURNS = "{{ messages | length }}" + PLAIN
OPENS_A_THOUGHT = PLAIN.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
SWITCHES_THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
TRIMS = PLAIN.replace("m['content']", "m['content'] | trim")
SOUND = {
    "plain": PLAIN,
    "default system": DEFAULT_SYSTEM,
    "marked": MARKED,
    "no break": NO_BREAK,
    "trims": TRIMS,
}
