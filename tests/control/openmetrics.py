"""What OpenMetrics 1.0 demands of a text and what of it `gnomon stat --openmetrics` could get wrong: a family is in one
piece and declared before its samples, counters end in _total, units are suffixes, labels are quoted and escaped, no sample
comes twice, and the last line is "# EOF"."""
import re

NAME = r'[a-zA-Z_:][a-zA-Z0-9_:]*'
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf'^({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)\}})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$')
SUFFIXES = {'counter': ('_total',), 'gauge': ('',), 'info': ('_info',), 'histogram': ('_bucket', '_count', '_sum')}


def histogram_complaint(buckets, counts):
    """`buckets`: {labels without le: [(le, count)]} in order; `counts`: {labels: count}."""
    for labels, rows in buckets.items():
        bounds, values = [float(le) for le, _ in rows], [count for _, count in rows]
        if bounds != sorted(set(bounds)) or bounds[-1] != float('inf'):
            return f'{labels}: bounds {bounds}'
        if values != sorted(values) or values[-1] != counts.get(labels):
            return f'{labels}: {values} are no counts up to {counts.get(labels)}'
    return None if set(buckets) == set(counts) else 'a histogram without buckets, or without a count'


def complaint(text):
    """Why `text` is no OpenMetrics; None if it is."""
    if not text.endswith('# EOF\n') or text.count('# EOF') != 1:
        return 'does not end in one "# EOF"'
    types, units, seen, family, buckets, counts = {}, {}, set(), None, {}, {}
    for number, line in enumerate(text.splitlines()[:-1], 1):
        declared = re.match(rf'^# (TYPE|UNIT|HELP) ({NAME}) (.+)$', line)
        if declared:
            what, name, value = declared.groups()
            if what == 'TYPE':
                if name in types or value not in SUFFIXES:
                    return f'line {number}: {name} declared twice, or as {value}'
                types[name], family = value, name
            if name != family:
                return f'line {number}: {what} of {name} inside {family}'
            if what == 'UNIT':
                units[name] = value
                if not name.endswith('_' + value):
                    return f'line {number}: {name} does not end in its unit {value}'
            continue
        sample = SAMPLE.match(line)
        if not sample:
            return f'line {number} is no sample: {line!r}'
        name, labels, value = sample.groups()
        if family is None or name not in [family + s for s in SUFFIXES[types[family]]]:
            return f'line {number}: {name} stands in the family {family}'
        keys = re.findall(rf'({NAME})="', labels or '')
        if len(set(keys)) != len(keys):
            return f'line {number}: a label twice'
        if (name, labels) in seen:
            return f'line {number}: the sample twice'
        if types[family] == 'counter' and float(value) < 0:
            return f'line {number}: a counter below 0'
        seen.add((name, labels))
        if types[family] == 'histogram' and name.endswith('_bucket'):
            le = re.search(r',?le="([^"]*)"', labels)
            if not le:
                return f'line {number}: a bucket without le'
            buckets.setdefault((family, labels.replace(le[0], '')), []).append((le[1], float(value)))
        elif types[family] == 'histogram' and name.endswith('_count'):
            counts[family, labels] = float(value)
    return histogram_complaint(buckets, counts) if seen else 'no samples'


def self_test():
    good = '# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x="1\\"2"} 1.5\n# EOF\n'
    assert complaint(good) is None, complaint(good)
    for bad in (good[:-6], good + 'x 1\n', good.replace('_total', ''), good.replace('1.5', 'NaNo'),
                good.replace('# UNIT a_seconds seconds', '# UNIT a_seconds bytes'), good.replace('\\"', '"'),
                good.replace('# EOF', 'a_seconds_total{x="1\\"2"} 1\n# EOF'), '# EOF\n'):
        assert complaint(bad), bad
    good = ('# TYPE a histogram\na_bucket{x="1",le="0.5"} 1\na_bucket{x="1",le="+Inf"} 3\na_count{x="1"} 3\n'
            'a_sum{x="1"} 2.5\n# EOF\n')
    assert complaint(good) is None, complaint(good)
    for bad in (good.replace('"0.5"} 1', '"0.5"} 4'), good.replace('+Inf', '7'), good.replace('count{x="1"} 3', 'count{x="1"} 2'),
                good.replace('le="0.5"', 'lo="0.5"')):
        assert complaint(bad), bad
