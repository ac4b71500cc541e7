"""The style sheet of a page: neutral in dark and light, and on paper; no font, image or address from elsewhere."""

LIGHT = (
    "--bg:#fff;--fg:#1b1f24;--muted:#59636e;--line:#d0d7de;--panel:#f6f8fa;--mark:#0b5394;--odd:#b3400a;"
    "--good:#1a6b33;--care:#7a5200;--bad:#a1201a;--c0:#0072b2;--c1:#b35900;--c2:#00795a;--c3:#a8488a;--c4:#4b6fa8;"
    "--c5:#6f6a00;"
)
DARK = (
    "--bg:#12161b;--fg:#e3e8ee;--muted:#9aa5b1;--line:#38424d;--panel:#1a2027;--mark:#6cb2f0;--odd:#ff9d5c;"
    "--good:#69c780;--care:#e3b341;--bad:#ff8a80;--c0:#5aaeea;--c1:#e8a04c;--c2:#4cc3a0;--c3:#e08fc4;--c4:#95b4e6;"
    "--c5:#cfc64f;"
)

STYLE = (
    f":root{{color-scheme:light dark;{LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    f"@media print{{:root{{color-scheme:light;{LIGHT}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:66rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.25rem 0 .5rem;padding-top:.5rem;border-top:1px solid var(--line)}
p{margin:.5rem 0}
ul{margin:.5rem 0;padding-left:1.4rem}
a{color:var(--mark)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.9em}
code{overflow-wrap:anywhere;unicode-bidi:isolate}
pre{background:var(--panel);border:1px solid var(--line);border-radius:4px;padding:.6rem .8rem;overflow-x:auto}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0}
.muted,figcaption,caption,.aside{color:var(--muted)}
.failed{border-left:4px solid var(--care);padding:.4rem .8rem;background:var(--panel);overflow-wrap:anywhere}
.advice{border-left:4px solid var(--mark);padding:.2rem .9rem;background:var(--panel);margin:.75rem 0}
.verdict{border:1px solid var(--line);border-left:8px solid var(--good);border-radius:4px;background:var(--panel);
padding:.6rem 1rem;margin:1rem 0}
.verdict.care{border-left-color:var(--care)}.verdict.bad{border-left-color:var(--bad)}
.verdict h2{border:0;margin:0;padding:0;font-size:1.25rem}
.verdict li{margin:.35rem 0}
.flag{color:var(--odd)}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
caption{text-align:left;white-space:nowrap;padding:.25rem 0;font-size:.92rem}
th,td{padding:.2rem .75rem .2rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{font-weight:600;vertical-align:bottom}tbody th{font-weight:400}
.number{text-align:right;white-space:nowrap}
figure{margin:1rem 0}figcaption{font-size:.92rem}
svg{max-width:100%;height:auto;display:block}
.pair{display:flex;flex-wrap:wrap;gap:.5rem}.pair svg{flex:1 1 20rem;min-width:0}
details{margin:.75rem 0}summary{cursor:pointer}
footer{margin-top:2.5rem;padding-bottom:2rem;color:var(--muted);font-size:.9rem}
svg text{fill:var(--fg);font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
svg .heading{font-weight:600;font-size:13px}svg .tick{font-size:11px;fill:var(--muted)}svg .small{font-size:11px}
svg path{fill:none;stroke:var(--fg);stroke-width:1}
svg .axis{stroke:var(--muted)}
svg .chain{stroke-width:.7;stroke-opacity:.55}
svg .odd{stroke:var(--fg);stroke-width:1.3;stroke-dasharray:4 2}
svg .bar{stroke:none;fill-opacity:.75}svg .pale{fill:var(--mark);fill-opacity:.3}
svg .expected{stroke:var(--fg);stroke-dasharray:4 3}
svg .solid{stroke:var(--mark);stroke-width:1.8}svg .fill{fill:var(--mark);fill-opacity:.15}
svg .dashed{stroke:var(--odd);stroke-width:2;stroke-dasharray:5 3}
svg .dot{stroke:var(--mark);stroke-width:3;stroke-linecap:round;stroke-opacity:.5}
svg .divergent{stroke:var(--odd);stroke-width:1.6}
svg .thread{stroke:var(--mark);stroke-opacity:.25}
svg .divergent-thread{stroke:var(--odd);stroke-opacity:.8;stroke-width:1.3;stroke-dasharray:6 2}
svg .whisker{stroke-width:1.2}svg .observed{stroke-width:6;stroke-linecap:round}
"""
    + "".join(f"svg .chain.c{i}{{stroke:var(--c{i})}}svg .bar.c{i}{{fill:var(--c{i})}}" for i in range(6))
    + """
@media print{body{font-size:10.5pt}nav{display:none}main,header,footer{max-width:none;padding:0}
figure,.verdict,.advice,tr{break-inside:avoid}h2,thead,caption{break-after:avoid}.scroll{overflow:visible}@page{margin:16mm}}
"""
)
