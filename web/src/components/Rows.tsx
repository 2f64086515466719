import { useElementSize, useMergedRef } from "@mantine/hooks";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ComponentType, useLayoutEffect, useRef, useState } from "react";

/** A long list in columns, of which only what is seen is drawn. */
export function Rows<T>(props: {
  items: readonly T[];
  /** The least width of a column, in pixels. */
  width: number;
  /** What a row is about as high as; each is measured once it is drawn. */
  height: number;
  gap?: number;
  label: string;
  /** Draws an item. A memoized one is drawn once, not at every step of the wheel. */
  Item: ComponentType<{ item: T }>;
  id: (item: T) => string;
}) {
  const gap = props.gap ?? 12;
  const size = useElementSize<HTMLDivElement>();
  const place = useRef<HTMLDivElement>(null);
  const ref = useMergedRef(size.ref, place);
  const [top, setTop] = useState(0);
  const columns = Math.max(1, Math.floor((size.width + gap) / (props.width + gap)));
  const rows = Math.ceil(props.items.length / columns);
  // What stands above the list may change its place at any draw.
  useLayoutEffect(() => {
    const now = (place.current?.getBoundingClientRect().top ?? 0) + window.scrollY;
    setTop(Math.round(now));
  });
  const virtual = useWindowVirtualizer({
    count: rows,
    estimateSize: () => props.height,
    overscan: 4,
    gap,
    scrollMargin: top,
  });
  return (
    // biome-ignore lint/a11y/useSemanticElements: a list item may not stand within a row's div
    <div
      ref={ref}
      role="list"
      aria-label={props.label}
      style={{ height: virtual.getTotalSize(), position: "relative" }}
    >
      {virtual.getVirtualItems().map((row) => (
        <div
          key={row.key}
          role="presentation"
          data-index={row.index}
          ref={virtual.measureElement}
          style={{
            position: "absolute",
            insetInline: 0,
            top: 0,
            transform: `translateY(${row.start - virtual.options.scrollMargin}px)`,
            display: "grid",
            gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`,
            gap,
          }}
        >
          {props.items.slice(row.index * columns, (row.index + 1) * columns).map((item, column) => (
            // biome-ignore lint/a11y/useSemanticElements: as above
            <div
              key={props.id(item)}
              role="listitem"
              aria-setsize={props.items.length}
              aria-posinset={row.index * columns + column + 1}
            >
              <props.Item item={item} />
            </div>
          ))}
        </div>
      ))}
    </div>
  );
}
