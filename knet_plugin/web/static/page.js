'use strict';
// The page asks the server for drawn pictures and for maps of regions; everything under the pointer is answered here.

const $ = id => document.getElementById(id);
const PARTS = ['panoptic', 'instances', 'semantic'];
const state = {models: [], chosen: new Set(), parts: new Set(PARTS), pictures: [], current: null, limit: 0, kept: 0, live: null, explored: null,
               found: {}, summary: 'Add a picture to begin.', turn: 0, look: 0};  // the last two count requests: late answers are dropped

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const percent = value => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
const say = line => { $('status').textContent = line; };

function fail(line) {
  $('error').textContent = line;
  $('error').hidden = !line;
}

async function ask(path, query = {}, options = {}) {
  const response = await fetch(`${path}?${new URLSearchParams(query)}`, options).catch(() => {
    throw new Error('the server does not answer: is `knet demo` still running?');
  });
  const answer = await response.json().catch(() => ({error: `the server answered ${response.status}`}));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Runs what a control starts, and shows an error as a line on the page.
async function attempt(action) {
  try { await action(); }
  catch (error) {
    fail(error.message);
    say(state.summary);
  }
}

// Pictures

async function upload(blob, name, replaces = 0) {
  if (blob.size > state.limit) throw new Error(`${name}: the file is larger than ${state.limit / 1e6} MB`);
  const {picture, width, height} = await ask('pictures', {name, replaces}, {method: 'POST', body: blob});
  return {id: picture, name, width, height, url: URL.createObjectURL(blob)};
}

function keep(picture) {
  state.pictures.push(picture);
  while (state.pictures.length > state.kept) URL.revokeObjectURL(state.pictures.shift().url);
  listPictures();
}

function listPictures() {
  $('pictures').replaceChildren(...state.pictures.map(picture => {
    const button = make('button', {type: 'button', title: picture.name, onclick: () => attempt(() => choose(picture))},
                        photoImage(picture, picture.name));
    if (picture === state.current) button.setAttribute('aria-current', 'true');
    return button;
  }));
}

// The browser shows what it can decode; for the rest, such as TIFF, the server has a PNG.
function photoImage(picture, alt) {
  const image = make('img', {src: picture.url, alt});
  image.onerror = () => { image.onerror = null; image.src = `photo.png?picture=${picture.id}`; };
  return image;
}

function stackOf(picture, ...images) {
  const stack = make('div', {className: 'stack'}, ...images);
  stack.style.aspectRatio = `${picture.width} / ${picture.height}`;
  return stack;
}

async function choose(picture) {
  stop();
  fail('');
  state.current = picture;
  listPictures();
  await showPanels();
}

async function addFiles(files) {
  stop();
  fail('');
  const failed = [];
  for (const file of files) {
    say(`Reading ${file.name} ...`);
    try {
      if (file.type.startsWith('video/')) { await play(URL.createObjectURL(file), null); continue; }
      keep(await upload(file, file.name));
      await choose(state.pictures.at(-1));
    } catch (error) { failed.push(error.message); }
  }
  if (failed.length) { fail(failed.join('\n')); say(state.summary); }
}

// Results

async function showPanels() {
  const picture = state.current, turn = ++state.turn;
  if (!picture) return;
  const panels = [photoPanel(picture)], lines = [], failed = [];
  for (const model of state.models.filter(model => state.chosen.has(model))) {
    say(`${model}: ${picture.name} ...`);
    try {
      const result = await ask('run', {picture: picture.id, model});
      if (turn !== state.turn) return;  // another picture or choice came in between
      state.found[model] = result.parts;
      lines.push(`${model}: ${result.line}${result.seconds ? ` in ${result.seconds.toFixed(2)} s` : ''}`);
      for (const part of result.parts.filter(part => state.parts.has(part))) panels.push(await makePanel(picture, model, part));
    } catch (error) { failed.push(`${model}: ${error.message}`); }
    if (turn !== state.turn) return;
  }
  if (!state.live) forgetKernel();
  $('panels').replaceChildren(...panels);
  for (const panel of panels.filter(panel => panel.refresh && panel.score !== $('score').value)) attempt(panel.refresh);
  setOpacity();
  listCompared();
  state.summary = lines.join('  ·  ') || 'Choose a model.';
  say(state.summary);
  if (failed.length) fail(failed.join('\n'));
}

function forgetKernel() {
  state.look += 1;
  $('explorer').hidden = true;
}

function photoPanel(picture) {
  return make('figure', {}, stackOf(picture, photoImage(picture, 'photo')),
              make('figcaption', {}, make('span', {className: 'grow'}, picture.name,
                                          make('small', {textContent: `${picture.width} x ${picture.height}`}))));
}

async function makePanel(picture, model, part) {
  const drawn = make('img', {alt: `${part} of ${model}`});
  const stack = stackOf(picture, photoImage(picture, ''), drawn);
  stack.classList.add('region');
  const count = make('small'), save = make('a', {className: 'button', textContent: 'PNG', download: `${picture.name}-${part}.png`});
  const coco = make('a', {className: 'button', textContent: 'COCO', title: 'JSON files and maps, as a zip archive',
                          download: `${picture.name}-coco.zip`});
  const panel = make('figure', {className: 'panel'}, stack,
                     make('figcaption', {}, make('span', {className: 'grow'}, `${part} · ${model}`, count), save, coco));
  Object.assign(panel.dataset, {model, part});
  let asked = 0;
  panel.refresh = async () => {
    const score = panel.score = $('score').value, number = ++asked;
    const answer = await ask('view', {picture: picture.id, model, part, score});
    const index = await pixels(answer.index);
    if (number !== asked) return;  // the slider moved on
    drawn.src = save.href = answer.drawn;
    coco.href = `coco.zip?${new URLSearchParams({picture: picture.id, model, score})}`;
    count.textContent = `${answer.regions.length} ${answer.regions.length === 1 ? 'region' : 'regions'}`;
    Object.assign(panel, {index, regions: answer.regions});
  };
  stack.onmousemove = event => showTip(event, panel);
  stack.onmouseleave = () => { $('tip').hidden = true; };
  stack.onclick = event => attempt(() => explore(event, panel, picture));
  await panel.refresh();
  return panel;
}

async function pixels(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = make('canvas', {width: image.width, height: image.height});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

function under(event, panel) {
  const box = event.currentTarget.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  const {width, height, data} = panel.index;
  const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
  const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
  const place = 4 * (row * width + column);
  return {x, y, region: panel.regions[data[place] + 256 * data[place + 1] - 1]};
}

function showTip(event, panel) {
  if (!panel.index) return;
  const {region} = under(event, panel), tip = $('tip');
  tip.hidden = !region;
  if (!region) return;
  tip.textContent = [region.name, region.score === null ? null : region.score.toFixed(2),
                     region.kernel === null ? null : `kernel ${region.kernel}`].filter(Boolean).join(' · ');
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${event.clientY + 16}px`;
}

let waiting = null;
function refreshSoon() {
  $('score-value').textContent = Number($('score').value).toFixed(2);
  $('differences').replaceChildren();
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    for (const panel of document.querySelectorAll('.panel')) attempt(panel.refresh);
  }, 80);
}

function setOpacity() {
  $('opacity-value').textContent = percent($('opacity').value);
  for (const image of document.querySelectorAll('.panel .stack img + img')) image.style.opacity = $('opacity').value;
}

// Kernels

async function explore(event, panel, picture) {
  const {x, y, region} = under(event, panel);
  const point = {picture: picture.id, model: panel.dataset.model, x, y};
  if (await showKernel(point, region ? region.kernel : null)) $('explorer').scrollIntoView({behavior: 'smooth', block: 'nearest'});
}

async function showKernel(point, kernel) {
  const look = ++state.look;
  fail('');
  say('Looking at the kernels ...');
  const answer = await ask('explore', kernel === null ? point : {...point, kernel});
  if (look !== state.look) return false;  // another click or picture came in between
  state.explored = {...point, kernel: answer.kernel};
  $('kernel').textContent = `${answer.kernel} of ${point.model}`;
  $('stages').replaceChildren(...answer.stages.map((stage, i) => make('figure', {}, make('img', {src: stage.mask, alt: `mask ${i}`}),
    make('figcaption', {textContent: `M${i}` + (stage.name ? ` · ${stage.name}` : '') +
                        (stage.score == null ? '' : ` ${stage.score.toFixed(2)}`)}))));
  const list = (id, entries) => $(id).replaceChildren(...entries.map(entry => {
    const score = entry.score == null ? '' : ` ${entry.score.toFixed(2)}`;
    const button = make('button', {type: 'button', onclick: () => attempt(() => showKernel(point, entry.kernel))},
                        make('span', {textContent: `${entry.kernel} · ${entry.name}${score}`}), make('span', {textContent: percent(entry.share)}));
    button.style.setProperty('--share', `${100 * entry.share}%`);
    return make('li', {}, button);
  }));
  list('rivals', answer.rivals);
  list('attention', answer.attention || []);
  $('attention').parentElement.hidden = !answer.attention;
  $('average-box').hidden = !answer.averages;
  $('average-map').replaceChildren();
  $('explorer').hidden = false;
  say(state.summary);
  return true;
}

$('average').onclick = () => attempt(async () => {
  say('Averaging over images; the first time takes a while ...');
  const look = state.look;
  const answer = await ask('average', state.explored);
  say(state.summary);
  if (look !== state.look) return;
  $('average-map').replaceChildren(make('img', {src: answer.mask, alt: 'average mask'}),
                                   `yellow is a mean probability of ${percent(answer.largest)}`);
});

// Differences

function listChoices() {
  $('models').replaceChildren(...state.models.map(model => {
    const box = make('input', {type: 'checkbox', checked: state.chosen.has(model), onchange: () => {
      box.checked ? state.chosen.add(model) : state.chosen.delete(model);
      attempt(showPanels);
    }});
    return make('label', {}, box, model);
  }));
  $('parts').replaceChildren(...PARTS.map(part => {
    const box = make('input', {type: 'checkbox', checked: true, onchange: () => {
      box.checked ? state.parts.add(part) : state.parts.delete(part);
      attempt(showPanels);
    }});
    return make('label', {}, box, part);
  }));
}

// The models and parts that can be compared; what was chosen stays.
function listCompared() {
  const fill = (select, values, standard) => {
    const chosen = values.includes(select.value) ? select.value : standard;
    select.replaceChildren(...values.map(value => make('option', {textContent: value, selected: value === chosen})));
  };
  const models = state.models.filter(model => state.chosen.has(model) && state.found[model]);
  fill($('first'), models, models[0]);
  if ($('second').value === $('first').value) $('second').value = '';
  fill($('second'), models, models.find(model => model !== $('first').value));
  const parts = PARTS.filter(part => [$('first').value, $('second').value].every(model => state.found[model]?.includes(part)));
  fill($('compared'), parts, parts[0]);
  $('differ').disabled = !parts.length;
  $('compare').hidden = models.length < 2;
  $('differences').replaceChildren();
}

$('first').onchange = $('second').onchange = listCompared;
$('differ').onclick = () => attempt(async () => {
  fail('');
  if (!state.current) throw new Error('add a picture first');
  const [a, b] = [$('first').value, $('second').value];
  const turn = state.turn, score = $('score').value;
  const answer = await ask('differences', {picture: state.current.id, a, b, part: $('compared').value, score});
  if (turn !== state.turn || score !== $('score').value) return;
  const key = (colour, text) => make('div', {}, Object.assign(make('span', {className: 'key', textContent: '■ '}),
                                                               {style: `color: ${colour}`}), text);
  $('differences').replaceChildren(
    make('img', {src: answer.picture, alt: `where ${a} and ${b} differ`}),
    make('div', {}, make('p', {textContent: `${percent(answer.share)} of the pixels have another class.`}),
         key('#e67800', `in regions of ${a} alone`), key('#006ee6', `in regions of ${b} alone`), key('#c800a0', 'elsewhere'),
         make('ul', {}, ...answer.lines.slice(0, 30).map(line => make('li', {textContent: line})))));
});

// Video and camera: the frame that is shown when the models have answered is the next one.

async function play(source, stream) {
  stop();
  const video = $('video'), live = {source, stream};
  state.live = live;
  if (stream) video.srcObject = stream; else video.src = source;
  video.loop = !stream;
  video.hidden = $('stop').hidden = false;
  try { await video.play(); }
  catch {
    if (state.live === live) stop();
    throw new Error('the browser cannot play this video');
  }
  showFrames(video, live).catch(error => {
    if (state.live !== live) return;
    stop();
    fail(error.message);
  });
}

async function showFrames(video, live) {
  const canvas = make('canvas');
  let last = {id: 0, url: ''};
  while (state.live === live) {
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext('2d').drawImage(video, 0, 0);
    const blob = await new Promise(done => canvas.toBlob(done, 'image/jpeg', 0.92));
    const frame = await upload(blob, `${live.stream ? 'camera' : 'video'} ${video.currentTime.toFixed(1)} s`, last.id);
    if (state.live !== live) return;
    state.current = frame;
    await showPanels();
    URL.revokeObjectURL(last.url);
    last = frame;
  }
}

function stop() {
  const video = $('video');
  video.pause();
  state.live?.stream?.getTracks().forEach(track => track.stop());
  if (state.live?.source) URL.revokeObjectURL(state.live.source);
  video.srcObject = null;
  video.removeAttribute('src');
  state.live = null;
  video.hidden = $('stop').hidden = true;
}

$('stop').onclick = stop;
$('camera').onclick = () => attempt(async () => {
  fail('');
  const stream = await navigator.mediaDevices?.getUserMedia({video: true}).catch(() => null);
  if (!stream) throw new Error('there is no camera, or the browser was not allowed to use it');
  await play(null, stream);
});

// Controls

$('files').onchange = async event => { await attempt(() => addFiles([...event.target.files])); event.target.value = ''; };
$('score').oninput = refreshSoon;
$('opacity').oninput = setOpacity;
for (const [name, over] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
  document.addEventListener(name, event => {
    event.preventDefault();
    $('drop').classList.toggle('over', over);
    if (name === 'drop') attempt(() => addFiles([...event.dataTransfer.files]));
  });
}

attempt(async () => {
  const answer = await ask('models');
  state.models = answer.models;
  state.limit = answer.limit;
  state.kept = answer.kept;
  state.chosen = new Set(answer.models.slice(0, 1));
  listChoices();
  $('score').oninput();
  $('opacity').oninput();
});
