// Geometry of landmarks, flat arrays x0 y0 x1 y1 …: sliders, another face's expression, alignment.
// The arithmetic is that of ecvae_jax/synthesis/directions.py and ecvae_jax/structure/openings.py.

/** Returns the mean of chosen points, or of all. */
export function center(face, chosen = null) {
  const count = chosen ? chosen.length : face.length / 2;
  let x = 0, y = 0;
  for (let k = 0; k < count; k++) {
    const i = 2 * (chosen ? chosen[k] : k);
    x += face[i] / count;
    y += face[i + 1] / count;
  }
  return [x, y];
}

/** Returns size (root mean square distance from the center) and the cosine and sine of the line of the eyes. */
export function frame(face, eyes) {
  const [cx, cy] = center(face);
  let sum = 0;
  for (let k = 0; k < face.length; k += 2) sum += (face[k] - cx) ** 2 + (face[k + 1] - cy) ** 2;
  const left = center(face, eyes[0]), right = center(face, eyes[1]);
  const length = Math.hypot(right[0] - left[0], right[1] - left[1]) || 1;
  return { cx, cy, size: Math.sqrt((2 * sum) / face.length), cos: (right[0] - left[0]) / length, sin: (right[1] - left[1]) / length };
}

/** Returns the face moved by amounts of the sliders; the result is a new array. */
export function applySliders(face, amounts, about) {
  const moved = Float64Array.from(face);
  const { size, cos, sin } = frame(face, about.eyes);
  for (const slider of about.sliders) {
    const amount = amounts[slider.name] || 0;
    if (!amount || !slider.direction) continue;
    slider.direction.forEach(([x, y], k) => {
      moved[2 * k] += amount * size * (cos * x - sin * y);
      moved[2 * k + 1] += amount * size * (sin * x + cos * y);
    });
  }
  return amounts.tilt ? rotate(moved, (amounts.tilt * Math.PI) / 180) : moved;
}

function rotate(face, angle) {
  const [cx, cy] = center(face);
  const cos = Math.cos(angle), sin = Math.sin(angle);
  return face.map((_, k) => {
    const x = face[k - (k % 2)] - cx, y = face[k - (k % 2) + 1] - cy;
    return k % 2 ? cy + sin * x + cos * y : cx + cos * x - sin * y;
  });
}

/** Returns the face with lids and lips that cross moved to their common middle. */
export function withoutCrossing(face, about) {
  const { cos, sin } = frame(face, about.eyes);
  const down = [-sin, cos];
  const fixed = Float32Array.from(face);
  for (const [upper, lower] of about.openings) {
    upper.forEach((u, k) => {
      const l = lower[k];
      const gap = (face[2 * l] - face[2 * u]) * down[0] + (face[2 * l + 1] - face[2 * u + 1]) * down[1];
      const crossed = Math.min(gap, 0) / 2;
      for (const axis of [0, 1]) {
        fixed[2 * u + axis] += crossed * down[axis];
        fixed[2 * l + axis] -= crossed * down[axis];
      }
    });
  }
  return fixed;
}

/** Returns another face placed on this one by the similarity of least squares: its shape, our place, size and roll. */
export function placeOn(other, face) {
  const [ox, oy] = center(other), [fx, fy] = center(face);
  let power = 1e-12, cos = 0, sin = 0;
  for (let k = 0; k < face.length; k += 2) {
    const a = other[k] - ox, b = other[k + 1] - oy, c = face[k] - fx, d = face[k + 1] - fy;
    power += a * a + b * b;
    cos += a * c + b * d;
    sin += a * d - b * c;
  }
  cos /= power;
  sin /= power;
  return Float32Array.from(face, (_, k) => {
    const a = other[k - (k % 2)] - ox, b = other[k - (k % 2) + 1] - oy;
    return k % 2 ? fy + sin * a + cos * b : fx + cos * a - sin * b;
  });
}

/** Returns this face with another's expression and pose: only the fitted directions of the difference are taken. */
export function borrow(face, other, about) {
  const { directions, solve } = about.expressions;
  const own = frame(face, about.eyes), theirs = frame(other, about.eyes);
  const aligned = (points, { cx, cy, size, cos, sin }) =>
    Float64Array.from(points, (_, k) => {
      const x = (points[k - (k % 2)] - cx) / size, y = (points[k - (k % 2) + 1] - cy) / size;
      return k % 2 ? cos * y - sin * x : cos * x + sin * y;
    });
  const one = aligned(face, own), two = aligned(other, theirs);
  const amounts = solve.map((row) => row.reduce((sum, weight, k) => sum + weight * (two[k] - one[k]), 0));
  const roll = Math.atan2(theirs.sin, theirs.cos) - Math.atan2(own.sin, own.cos);
  const moved = Float64Array.from(face);
  directions.forEach((direction, d) =>
    direction.forEach(([x, y], k) => {
      moved[2 * k] += amounts[d] * own.size * (own.cos * x - own.sin * y);
      moved[2 * k + 1] += amounts[d] * own.size * (own.sin * x + own.cos * y);
    }),
  );
  return Float32Array.from(rotate(moved, roll));
}

/** Returns why landmarks are no usable face, or an empty text: the main rules of data/photos/face_check.py. */
export function fault(landmarks, photo, about) {
  let inside = 0;
  for (let k = 0; k < landmarks.length; k += 2)
    inside += landmarks[k] >= 0 && landmarks[k] <= photo.width && landmarks[k + 1] >= 0 && landmarks[k + 1] <= photo.height;
  if (2 * inside < landmarks.length / 2) return "most of the face is outside the photo";
  const { cos, sin } = frame(landmarks, about.eyes);
  const roll = (Math.atan2(sin, cos) * 180) / Math.PI;
  if (Math.abs(roll) > 120) return `the face is upside down (roll ${Math.round(roll)}°): turn the photo`;
  return "";
}
