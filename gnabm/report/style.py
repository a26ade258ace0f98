"""The style sheet of a report."""

STYLE = """
:root{color-scheme:light;--ink:#1d2733;--muted:#5d6875;--rule:#dfe3e8;--paper:#fcfbf9;--card:#fff;--accent:#b1432a}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2rem;line-height:1.2;letter-spacing:-.01em;margin:0 0 .35rem;font-weight:650;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:3.2rem 0 .4rem;padding-top:1.2rem;border-top:1px solid var(--rule);font-weight:650}
h3{font-size:1rem;margin:0 0 .15rem;font-weight:600}
p{margin:.2rem 0 1rem}
.lead,.note,.remark,figcaption span,dt,th{color:var(--muted)}
.lead{max-width:46rem}
.note{font-size:.86rem;margin:0 0 .5rem;max-width:52rem}
.banner{border-left:4px solid #d79a2b;background:#fdf5e4;padding:.7rem 1rem;margin:1.2rem 0}
.key{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:1px;
  border:1px solid var(--rule);margin:1.6rem 0 0}
.key div{background:var(--card);outline:1px solid var(--rule);padding:.85rem 1rem}
.key b{display:block;font-size:1.55rem;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}
.key .lead-figure b{color:var(--accent)}
.key span{display:block;font-size:.84rem;line-height:1.4;color:var(--muted);margin-top:.1rem}
.two{display:grid;grid-template-columns:1fr 1fr;gap:28px}
.two>*{min-width:0}
.chart{width:100%}
.block{margin-top:1.4rem;min-width:0}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(225px,1fr));gap:6px 14px}
.panels>*{min-width:0}
h4{font-size:.86rem;margin:.3rem 0 0;font-weight:500;color:var(--muted)}
.key i{font-style:normal;font-size:.95rem;font-weight:400;color:var(--muted);white-space:nowrap}
.files{font-size:.78rem;line-height:1.45;color:var(--muted);margin:.1rem 0 0}
.files a{margin-right:.5rem}
a{color:#2f6690}
.cells{display:grid;grid-template-columns:repeat(auto-fill,minmax(225px,1fr));gap:20px 26px;margin:.6rem 0 0}
.cell{margin:0;min-width:0}
.cell svg{display:block;width:100%;height:64px;border-bottom:1px solid var(--rule)}
.cell path{fill:none;vector-effect:non-scaling-stroke}
.cell .line{stroke:var(--accent);stroke-width:1.6}
.cell .area{fill:rgba(177,67,42,.12)}
.cell .moment{stroke:#5d6875;stroke-width:1;stroke-dasharray:3 3}
.cell .whole{stroke:#b9c1ca;stroke-width:1.2}
figcaption{display:flex;justify-content:space-between;gap:8px;font-size:.8rem;line-height:1.3;margin-bottom:3px}
figcaption b{font-weight:600;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
figcaption span{white-space:nowrap;font-size:.76rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin-top:.6rem}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th{font-weight:500;text-align:left;vertical-align:bottom}
th,td{padding:.38rem .8rem .38rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th:last-child,td:last-child{padding-right:0}
.num{text-align:right;white-space:nowrap}
.narrow td{overflow-wrap:anywhere}
.remark{font-size:.8rem}
.flag{display:inline-block;font-size:.76rem;padding:0 .45rem;border-radius:9px;background:#fdf0d5;
  color:#7a5310;white-space:nowrap}
.flag.measured,.flag.met{background:#e6f0ec;color:#2c5f51}
.flag.missed{background:#fbe3dc;color:#8c2a14}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;font-size:.88rem;margin:.5rem 0 0}
dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
details{margin-top:1.2rem}
summary{cursor:pointer;font-weight:600}
pre{background:#f3f2ee;padding:1rem;overflow-x:auto;
  font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{margin-top:3rem;font-size:.84rem;color:var(--muted)}
@media (max-width:820px){.two{grid-template-columns:1fr;gap:8px}}
@media (max-width:520px){
  body{font-size:15px} main{padding:24px 14px 48px} h1{font-size:1.55rem}
  .key{grid-template-columns:1fr 1fr} .key b{font-size:1.25rem} .key div{padding:.65rem .75rem}
  .cells{grid-template-columns:1fr 1fr;gap:14px 12px} figcaption{display:block} figcaption b{display:block}
  .scroll table{min-width:560px} .scroll table.narrow{min-width:0}
}
@media print{body{background:#fff} details{display:none}}
"""
