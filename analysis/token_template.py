"""The HTML page of `analysis.token_map`, a Jinja2 template: no script, nothing from the network, light and dark."""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ name }} per token: {{ title }}</title>
<style>
:root { --page: #ffffff; --ink: #222222; --quiet: #595959; --line: #d9d9d9; --right: #005a8e; --wrong: #a34700; }
{% for background, text in light %}.l{{ loop.index0 }} { background: {{ background }}; color: {{ text }}; }
{% endfor %}.none { background: none; color: var(--ink); text-decoration: line-through; }
@media (prefers-color-scheme: dark) {
:root { --page: #14161a; --ink: #e8e8e8; --quiet: #a8a8a8; --line: #3a3e45; --right: #6cb8ee; --wrong: #f0985a; }
{% for background, text in dark %}.l{{ loop.index0 }} { background: {{ background }}; color: {{ text }}; }
{% endfor %}}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 64rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 0; }
p { margin: .3rem 0; } p.quiet { color: var(--quiet); overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 2px; margin: 1rem 0 1.6rem; position: sticky; top: 0;
  background: var(--page); padding: .5rem 0; }
.legend span { padding: .15rem .5rem; font-size: .8rem; font-variant-numeric: tabular-nums; }
.legend .of { padding-left: 0; color: var(--quiet); }
.item { border-top: 1px solid var(--line); padding: 1rem 0; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
pre { font: .95rem/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0;
  direction: ltr; unicode-bidi: isolate; }
pre span { padding: .1rem 0; border-radius: 2px; box-shadow: inset -1px 0 var(--page); }
pre span:hover { outline: 2px solid var(--ink); }
</style>
</head>
<body>
<h1>{{ name }} per token</h1>
<p>{{ meaning }}</p>
<p class="quiet">{{ title }}. {{ note }}</p>
<div class="legend"><span class="of">{{ name }}{% if unit %} in {{ unit }}{% endif %}:</span>
{%- for entry in legend %}<span class="l{{ entry.level }}">{{ entry.label }}</span>{% endfor %}</div>
{% for item in items %}<div class="item">
<h2>{{ loop.index }}. <span class="{{ 'right' if item.completion.correct else 'wrong' }}">
{{- 'right' if item.completion.correct else 'wrong' }}</span>, {{ item.tokens|length }} tokens,
mean {{ item.mean }}</h2>
<p class="quiet">{{ item.completion.question }}</p>
<pre>
{%- for token in item.tokens -%}
<span class="{{ 'none' if token.level is none else 'l%d' % token.level }}" title="{{ token.hover }}">
{{- token.text -}}
</span>
{%- endfor -%}
</pre>
</div>
{% endfor %}</body>
</html>
"""
