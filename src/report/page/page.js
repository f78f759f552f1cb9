/*
 * The page of a comparison: reads the JSON of schema "gnomon-compare" from the element "data" (and documents with other runs
 * from "more") and draws it with Chart.js.
 *
 * Everything depends on the chosen profile; choosing another one draws all charts again. When drawing is done the root
 * element says so: data-charts has the names of the charts, data-errors what went wrong; the test of this page reads them.
 */
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const more = JSON.parse(document.getElementById('more').textContent);
const charts = {};
const errors = [];
const PALETTE = ['#2f6fab', '#e08a2e', '#4a9a62', '#b4485c', '#7d62b3', '#8a6a52', '#d07ab0', '#6b7785', '#b3a72f', '#33a3b5'];
const CAUSE_COLOURS = {
	'walk': '#2f6fab', 'tlb': '#8ab8de', 'exit.pf_hidden': '#b4485c', 'exit.pf_true': '#e2909d',
	'exit.cr3_write': '#e08a2e', 'exit.invlpg': '#f2c58f', 'exit.table_write': '#7d62b3',
	'exit.nested_violation': '#33a3b5', 'exit.other': '#9aa5b1', 'paging': '#4a9a62', 'rest': '#444444',
};

const byId = (id) => document.getElementById(id);
const percent = (value) => `${value >= 0 ? '+' : ''}${value.toFixed(Math.abs(value) < 10 ? 2 : 1)} %`;
const grouped = (value) => Math.round(value).toLocaleString('en-US');

window.addEventListener('error', (event) => {
	errors.push(event.message);
	document.documentElement.dataset.errors = errors.join('; ');
});

function virtualized(profile) {
	return profile.schemes.filter((s) => s.is_virtualized);
}

function draw(name, height, config) {
	if (charts[name])
		charts[name].destroy();
	byId(name).parentElement.style.height = `${height}px`;
	config.options = Object.assign({responsive: true, maintainAspectRatio: false, animation: false}, config.options);
	charts[name] = new Chart(byId(name), config);
}

/*
 * A heat map is a stacked bar chart whose bars touch: one dataset a row, every bar one high. cell(row, column) returns
 * {colour, lines, tip}, or null for an empty one.
 */
const CELL_LABELS = {
	id: 'cellLabels',
	afterDatasetsDraw(chart) {
		const cells = chart.options.cells;
		if (!cells)
			return;
		const ctx = chart.ctx;
		ctx.save();
		ctx.textAlign = 'center';
		ctx.textBaseline = 'middle';
		ctx.font = '11px system-ui, "DejaVu Sans", sans-serif';
		cells.forEach((row, r) => row.forEach((cell, c) => {
			if (!cell)
				return;
			const bar = chart.getDatasetMeta(r).data[c];
			const y = (bar.y + bar.base) / 2;
			ctx.fillStyle = cell.ink || '#1c2733';
			cell.lines.forEach((line, n) => ctx.fillText(line, bar.x, y + 13 * (n - (cell.lines.length - 1) / 2)));
		}));
		ctx.restore();
	},
};

function heatMap(name, rows, columns, cell, options) {
	const shown = [...rows].reverse(); /* the first row on top */
	const cells = shown.map((row, r) => columns.map((column, c) => cell(rows.length - 1 - r, c)));
	draw(name, 70 + rows.length * (options.rowHeight || 28), {
		type: 'bar',
		data: {
			labels: columns,
			datasets: shown.map((row, r) => ({
				label: row,
				data: columns.map(() => 1),
				backgroundColor: cells[r].map((one) => (one ? one.colour : '#f4f6f8')),
				borderColor: '#ffffff', borderWidth: 1,
				barPercentage: 1, categoryPercentage: 1, stack: 'all',
			})),
		},
		options: {
			cells,
			scales: {
				x: {stacked: true, grid: {display: false}, title: {display: !!options.x, text: options.x}},
				y: {
					stacked: true, min: 0, max: rows.length, grid: {display: false},
					title: {display: !!options.y, text: options.y},
					afterBuildTicks(axis) { axis.ticks = shown.map((row, r) => ({value: r + 0.5})); },
					ticks: {callback: (value) => shown[Math.floor(value)], autoSkip: false},
				},
			},
			plugins: {
				legend: {display: false},
				tooltip: {
					callbacks: {
						title: () => '',
						label: (item) => {
							const one = cells[item.datasetIndex][item.dataIndex];
							return one ? one.tip : 'nothing here';
						},
					},
				},
			},
		},
		plugins: [CELL_LABELS],
	});
}

/* From pale to deep by share in 0..1. */
function shade(share) {
	const t = Math.max(0, Math.min(1, share));
	const mix = (from, to) => Math.round(from + (to - from) * t);
	return {colour: `rgb(${mix(240, 36)},${mix(246, 84)},${mix(252, 140)})`, ink: t > 0.55 ? '#ffffff' : '#1c2733'};
}

/* ---- the charts ---- */

function drawCauses(profile) {
	const schemes = virtualized(profile);
	const names = Object.keys(schemes.length ? schemes[0].causes : {});
	const used = names.filter((n) => schemes.some((s) => s.causes[n].cycles !== 0));
	draw('causes', 110 + 34 * schemes.length, {
		type: 'bar',
		data: {
			labels: schemes.map((s) => `${s.strategy}  ${percent(s.slowdown_percent)}`),
			datasets: used.map((n) => ({
				label: n,
				data: schemes.map((s) => s.causes[n].percent_of_native),
				backgroundColor: CAUSE_COLOURS[n], stack: 'all',
			})),
		},
		options: {
			indexAxis: 'y',
			scales: {x: {stacked: true, title: {display: true, text: 'percent of native'}}, y: {stacked: true, grid: {display: false}}},
			plugins: {tooltip: {callbacks: {label: (item) => `${item.dataset.label}: ${percent(item.raw)}`}}},
		},
	});
}

function drawProfiles() {
	byId('profiles-section').hidden = data.profiles.length < 2;
	if (data.profiles.length < 2)
		return;
	const columns = [...new Set(data.profiles.flatMap((p) => virtualized(p).map((s) => s.strategy)))];
	const find = (p, c) => virtualized(data.profiles[p]).find((s) => s.strategy === columns[c]);
	heatMap('profiles', data.profiles.map((p) => p.name), columns, (p, c) => {
		const scheme = find(p, c);
		if (!scheme)
			return null;
		const value = scheme.slowdown_percent;
		return Object.assign(shade(Math.log10(1 + Math.max(0, value)) / 3),
			{lines: [percent(value)], tip: `${columns[c]} on ${data.profiles[p].name}: ${percent(value)}`});
	}, {});
}

function drawMatrix(profile) {
	const schemes = profile.schemes;
	const columns = ['guest', 'host', 'shadow'].flatMap((d) => [5, 4, 3, 2, 1].map((level) => [d, level]))
		.filter(([d, level]) => schemes.some((s) => s.references_per_walk[d][level - 1] > 0));
	const labels = columns.map(([d, level]) => `${d[0].toUpperCase()}${level}`);
	const most = Math.max(1e-9, ...schemes.map((s) => s.references_per_walk.all));
	labels.push('all');
	heatMap('matrix', schemes.map((s) => s.strategy), labels, (r, c) => {
		const references = schemes[r].references_per_walk;
		const value = c === columns.length ? references.all : references[columns[c][0]][columns[c][1] - 1];
		return Object.assign(shade(value / most),
			{lines: [value.toFixed(2)], tip: `${schemes[r].strategy}, ${labels[c]}: ${value.toFixed(4)} references for each walk`});
	}, {x: 'table and level'});
}

/* What happened between neighbouring samples: [{instructions, cycles, ...}]. */
function intervals(soFar) {
	const list = [];
	for (let n = 0; n < soFar.instructions.length; n++) {
		const one = {};
		for (const key of Object.keys(soFar))
			one[key] = soFar[key][n] - (n ? soFar[key][n - 1] : 0);
		one.end = soFar.instructions[n];
		list.push(one);
	}
	return list;
}

function seriesOf(profile) {
	const mine = data.series.schemes.filter((s) => s.profile === profile.name)
		.map((s) => ({strategy: s.strategy, intervals: intervals(s.so_far)}));
	const native = mine.find((s) => s.strategy.split(':')[0] === 'native');
	return {native, others: mine.filter((s) => s !== native)};
}

const millions = {callback: (value) => `${Math.round(value / 1e4) / 100} M`};

function timeChart(name, datasets, title, extra) {
	draw(name, 340, {
		type: 'line',
		data: {datasets},
		options: {
			parsing: false, interaction: {mode: 'nearest', axis: 'x', intersect: false},
			scales: Object.assign({
				x: {type: 'linear', title: {display: true, text: 'guest instructions'}, ticks: millions},
				y: {title: {display: true, text: title}},
			}, extra),
		},
	});
}

const curve = (label, colour, points, more) => Object.assign(
	{label, borderColor: colour, backgroundColor: colour, data: points, pointRadius: points.length > 60 ? 0 : 2, borderWidth: 1.6}, more);

const LEAST_PERCENT = 0.01; /* the axis is logarithmic; what is less lies on its foot */

function drawTimeline(series) {
	timeChart('timeline', series.others.map((s, i) => curve(s.strategy, PALETTE[i % PALETTE.length], s.intervals.map((one, n) => {
		const base = series.native.intervals[n].cycles;
		return {x: one.end, y: Math.max(LEAST_PERCENT, base ? 100 * (one.cycles - base) / base : 0)};
	}))), 'percent of native', {
		y: {
			type: 'logarithmic', min: LEAST_PERCENT, title: {display: true, text: 'percent of native'},
			ticks: {callback: (value) => (Number.isInteger(Math.log10(value)) ? `${value} %` : '')},
		},
	});
}

function drawModes(series) {
	const movers = series.others.filter((s) => /^(adaptive|agile)/.test(s.strategy));
	byId('modes-section').hidden = !movers.length;
	if (!movers.length)
		return;
	timeChart('modes', movers.flatMap((s, i) => [
		curve(`${s.strategy}: shadow share`, PALETTE[i], s.intervals.map((one) => {
			const all = one.host_references + one.shadow_references;
			return {x: one.end, y: all ? 100 * one.shadow_references / all : null};
		}), {stepped: 'before', spanGaps: true}),
		curve(`${s.strategy}: switches`, PALETTE[i + 4], s.intervals.map((one) => ({x: one.end, y: one.switches})),
			{yAxisID: 'switches', showLine: false, pointRadius: s.intervals.map((one) => (one.switches ? 4 : 0))}),
	]), '', {
		y: {min: 0, max: 100, title: {display: true, text: 'percent of references'}},
		switches: {position: 'right', min: 0, grid: {display: false}, title: {display: true, text: 'switches'}},
	});
}

/* Bounds of cells, a third of a decade each; rates of 0 are in the first. */
const CR3_BOUNDS = [0, 1, 3, 10, 30, 100, 300, 1000, 3000];
const MISS_BOUNDS = [0, 0.1, 0.3, 1, 3, 10, 30, 100];
const WRITE_SLICES = [['any', 0, Infinity], ['below 10', 0, 10], ['10 to 100', 10, 100], ['100 to 1000', 100, 1000], ['above 1000', 1000, Infinity]];
const binOf = (bounds, value) => bounds.filter((b) => value >= b).length - 1;
const boundName = (bounds, i) => (i + 1 < bounds.length ? `${bounds[i]} to ${bounds[i + 1]}` : `from ${bounds[i]}`);

/*
 * What falls into the diagram: {instructions, tlb_misses, cr3_writes, table_writes, native, costs: {strategy: cycles}}. One for
 * each interval of this run, and one for each run of the element "more" (other comparisons, gnomon bench papers).
 */
function phasePoints(profile) {
	const points = [];
	if (data.series !== null) {
		const series = seriesOf(profile);
		series.native.intervals.forEach((native, n) => points.push({
			instructions: native.instructions, tlb_misses: native.tlb_misses, cr3_writes: native.cr3_writes,
			table_writes: Math.max(0, ...series.others.map((s) => s.intervals[n].table_writes)), native: native.cycles,
			costs: Object.fromEntries(series.others.map((s) => [s.strategy, s.intervals[n].cycles])),
		}));
	}
	more.forEach((document) => runsOf(document, profile).forEach((run) => points.push(run)));
	return points.filter((p) => p.instructions > 0);
}

/* A count of a scheme of either schema: by ring, or the sum. */
function eventCount(scheme, name) {
	const count = scheme.events[name];
	return typeof count === 'object' ? count.kernel + count.user : count || 0;
}

function pointOf(schemes) {
	const native = schemes.find((s) => s.strategy.split(':')[0] === 'native');
	const others = schemes.filter((s) => s !== native);
	return native && {
		instructions: eventCount(native, 'instruction'), tlb_misses: eventCount(native, 'tlb.miss'),
		cr3_writes: eventCount(native, 'guest.cr3_write'), native: native.cycles,
		table_writes: Math.max(0, ...others.map((s) => eventCount(s, 'exit.table_write') + eventCount(s, 'shadow.unsync'))),
		costs: Object.fromEntries(others.map((s) => [s.strategy, s.cycles])),
	};
}

function runsOf(document, profile) {
	const runs = document.schema === 'gnomon-compare'
		? document.profiles.filter((p) => p.name === profile.name).map((p) => p.schemes)
		: Object.values(document.machines).flat().map((part) => part.schemes.filter((s) => s.profile === profile.name));
	return runs.map(pointOf).filter((point) => point);
}

function collectPhases(points, slice) {
	const cells = new Map();
	points.forEach((p) => {
		const work = p.instructions, writes = 1e6 * p.table_writes / work;
		if (writes < slice[1] || writes >= slice[2])
			return;
		const key = `${binOf(MISS_BOUNDS, 1e3 * p.tlb_misses / work)},${binOf(CR3_BOUNDS, 1e6 * p.cr3_writes / work)}`;
		const cell = cells.get(key) || {count: 0, native: 0, costs: {}};
		cell.count++;
		cell.native += p.native;
		for (const name of Object.keys(p.costs)) {
			const cost = cell.costs[name] || {count: 0, beyond: 0, native: 0};
			cell.costs[name] = {count: cost.count + 1, beyond: cost.beyond + p.costs[name] - p.native, native: cost.native + p.native};
		}
		cells.set(key, cell);
	});
	return cells;
}

/* The strategies of a cell, cheapest first; those that not every point of it has do not count. */
function orderOf(cell) {
	return Object.entries(cell.costs).filter(([, cost]) => cost.count === cell.count && cost.native)
		.map(([name, cost]) => [100 * cost.beyond / cost.native, name]).sort((a, b) => a[0] - b[0]);
}

function drawPhases(profile) {
	const points = phasePoints(profile);
	byId('phases-section').hidden = !points.length;
	if (!points.length)
		return;
	const cells = collectPhases(points, WRITE_SLICES[byId('table-writes').value]);
	const names = [...new Set(points.flatMap((p) => Object.keys(p.costs)))];
	const rows = MISS_BOUNDS.map((b, i) => boundName(MISS_BOUNDS, i)).reverse();
	heatMap('phases', rows, CR3_BOUNDS.map((b, i) => boundName(CR3_BOUNDS, i)), (r, c) => {
		const cell = cells.get(`${MISS_BOUNDS.length - 1 - r},${c}`);
		const order = cell ? orderOf(cell) : [];
		if (!order.length)
			return null;
		const lead = order.length > 1 ? order[1][0] - order[0][0] : 0;
		return {
			colour: PALETTE[names.indexOf(order[0][1]) % PALETTE.length] + 'b0',
			lines: [...order[0][1].split(':'), `by ${lead.toFixed(lead < 1 ? 2 : 1)} %`, `${cell.count} of ${points.length}`],
			tip: order.map(([share, name]) => `${name} ${percent(share)}`).join(', '),
		};
	}, {x: 'CR3 writes a million instructions', y: 'TLB misses for 1000 instructions', rowHeight: 64});
}

/* A chart for each number that was varied; their number is only known here. */
function drawVaried(profile) {
	byId('varied-section').hidden = !profile.varied.length;
	byId('varied').replaceChildren(...profile.varied.flatMap((v, n) => {
		const text = document.createElement('p');
		const points = v.crossings.map((c) => `break-even at ${c.value.toFixed(1)}: ${c.below} is cheaper below, ${c.above} above`);
		text.textContent = `${v.key}: the profile says ${v.stated} cycles (class ${v.class}); `
			+ (points.join('; ') || 'the order is the same over the whole range') + '.';
		const box = document.createElement('div');
		box.className = 'chart';
		const canvas = document.createElement('canvas');
		canvas.id = `varied-${n}`;
		box.append(canvas);
		return [text, box];
	}));
	profile.varied.forEach((v, n) => draw(`varied-${n}`, 300, {
		type: 'line',
		data: {
			datasets: Object.keys(v.points[0].totals).map((name, i) => curve(name, PALETTE[i % PALETTE.length],
				v.points.map((p) => ({x: p.value, y: p.totals[name]})))),
		},
		options: {
			parsing: false,
			scales: {
				x: {type: 'linear', title: {display: true, text: `${v.key}, cycles`}},
				y: {title: {display: true, text: 'cycles of the run'}},
			},
		},
	}));
}

/* ---- words ---- */

function fillTable(profile) {
	const causes = Object.keys(profile.schemes[0].causes).filter((n) => profile.schemes.some((s) => s.causes[n].cycles !== 0));
	const cell = (tag, text) => {
		const element = document.createElement(tag);
		element.textContent = text;
		return element;
	};
	const row = (tag, texts, style) => {
		const element = document.createElement('tr');
		element.className = style || '';
		element.append(...texts.map((text) => cell(tag, text)));
		return element;
	};
	const rows = profile.schemes.map((s) => row('td', [
		s.strategy + (s.is_primary ? ' *' : '') + (s.is_hypothetical ? ' (hypothetical)' : ''), grouped(s.cycles), percent(s.slowdown_percent),
		...causes.map((n) => (s.causes[n].cycles ? percent(s.causes[n].percent_of_native) : '.')),
		s.tlb_misses_per_1000_instructions.toFixed(3), s.references_per_walk.all.toFixed(2),
		s.is_virtualized ? `${s.estimates_percent.of_overhead.toFixed(0)} %` : '',
	], s.strategy === profile.verdict.best ? 'best' : s.strategy === profile.verdict.worst ? 'worst' : ''));
	const o = profile.oracle;
	if (o)
		rows.push(row('td', ['oracle', grouped(o.cycles), percent(o.slowdown_percent)]));
	byId('table').replaceChildren(row('th', ['strategy', 'cycles', 'slowdown', ...causes, 'misses/1000', 'refs/walk', 'estimates']), ...rows);
}

function sayVerdict(profile) {
	const v = profile.verdict;
	const parts = [];
	if (v.best) {
		const best = profile.schemes.find((s) => s.strategy === v.best);
		parts.push(`Best on ${profile.name}: ${v.best}, ${percent(best.slowdown_percent)} against native.`);
	}
	if (v.worst && v.worst !== v.best)
		parts.push(`The worst, ${v.worst}, takes ${v.worst_to_best.toFixed(2)} times as long.`);
	if (v.nested_to_best_shadow !== null)
		parts.push(`The best shadow strategy, ${v.best_shadow}, against ${v.nested}: ${v.nested_to_best_shadow.toFixed(2)}x.`);
	const o = profile.oracle;
	if (o) {
		const uses = Object.entries(o.instructions).map(([name, n]) => `${name} for ${(n / data.run.instructions * 100).toFixed(0)} %`);
		parts.push(`An oracle that knows the future: ${percent(o.slowdown_percent)}, ${o.changes} changes, ${uses.join(', ')} of the instructions.`);
	}
	byId('verdict').textContent = parts.join(' ') || 'No strategy but native was compared.';
}

function drawSeries(profile) {
	const hasSeries = data.series !== null && data.series.samples > 0;
	byId('series-section').hidden = !hasSeries;
	if (!hasSeries)
		return;
	const series = seriesOf(profile);
	drawTimeline(series);
	drawModes(series);
}

function drawAll() {
	const profile = data.profiles[byId('profile').value];
	sayVerdict(profile);
	drawCauses(profile);
	drawProfiles();
	drawMatrix(profile);
	drawSeries(profile);
	drawPhases(profile);
	drawVaried(profile);
	fillTable(profile);
	document.documentElement.dataset.charts = Object.keys(charts).sort().join(' ');
}

function options(select, names) {
	select.append(...names.map((name, i) => new Option(name, i)));
	select.addEventListener('change', drawAll);
}

Chart.defaults.font.family = 'system-ui, "DejaVu Sans", sans-serif';
const run = data.run;
byId('facts').textContent = `${run.scope}: ${grouped(run.instructions)} instructions, ${run.vcpus} vcpu${run.vcpus === 1 ? '' : 's'}`
	+ `${run.guest_levels ? `, ${run.guest_levels}-level guest` : ''}; ${run.primary_strategy} served the guest`
	+ `${run.ending ? `; ${run.ending}` : ''}.`;
options(byId('profile'), data.profiles.map((p) => `${p.name}: ${p.description}`));
options(byId('table-writes'), WRITE_SLICES.map((s) => s[0]));
drawAll();
