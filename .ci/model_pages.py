"""Adds a page for each published model and recipe to the site, from metafiles, docs/models.csv and learning.csv."""

import csv
from pathlib import Path
from typing import Any

import jinja2
import yaml
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SCORES = ('PQ', 'PQ things', 'PQ stuff', 'AP', 'AP50', 'AP75', 'mIoU')
LIST = """# Models

Figures of published models are those of the paper and the official release. Multiply-adds (without deformable
convolutions) and seconds are from an image to logits, with random weights, on one thread of a CPU.

| model | figures | parameters (M) | G multiply-adds | image | seconds |
|---|---|---|---|---|---|
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and their list."""
    template = jinja2.Template((Path(__file__).parent / 'model_page.md').read_text(encoding='utf-8'))
    published = {model['Name']: model for folder in ('panoptic', 'instance', 'semantic')
                 for model in yaml.safe_load((ROOT / f'configs/{folder}/metafile.yml').read_text())['Models']}
    lines = []
    for cost in table('models.csv'):
        name = cost['name']
        about = of_published(published[name]) if name in published else of_recipe(name)
        text = template.render(name=name, cost=cost, scores=SCORES, repository=config.repo_url, **about)
        files.append(File.generated(config, f'models/{name}.md', content=text))
        figures = ', '.join(f'{key} {value}' for key, value in about.get('figures', {}).items())
        lines.append(f'| [{name}](models/{name}.md) | {figures} | {cost["parameters"]} | {cost["multiply-adds"]} | '
                     f'{cost["image"]} | {cost["seconds"]} |')
    files.append(File.generated(config, 'models.md', content=LIST + '\n'.join(lines)))
    return files


def of_published(model: dict[str, Any]) -> dict[str, Any]:
    """What a metafile says about a model."""
    info = model['Metadata']
    weights = model.get('Weights', '/')
    epochs = f', {info["Epochs"]} epochs' if 'Epochs' in info else ''
    return dict(
        about=f'{", ".join(info["Architecture"])}; trained on {info["Training Data"]}, {info["Batch Size"]} images at '
              f'once{epochs}.',
        figures={f'{key} ({result["Dataset"]})': value for result in model['Results']
                 for key, value in result['Metrics'].items()},
        published=True, path=model['Config'], data=info['Training Data'],
        weights=None if weights.endswith('/') else weights,
        source='mmsegmentation' if info.get('Weights From') == 'mmsegmentation' else 'the official release')


def of_recipe(name: str) -> dict[str, Any]:
    """What the comment of a recipe says, and its runs."""
    path = f'configs/recipe/{name}.py'
    comment = []
    for line in (ROOT / path).read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        comment.append(line.removeprefix('#').strip())
    runs = [run for run in table('learning.csv') if f'recipe/{name} ' in f'{run["options"]} ']
    about = '\n'.join(comment) or 'A model for own data, see [the recipe](../recipe.md).'
    return dict(about=about, path=path, runs=runs)


def table(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of docs/."""
    with (ROOT / 'docs' / name).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))
