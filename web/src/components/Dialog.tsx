import { Modal } from "@mantine/core";
import { type ReactNode, useEffect, useState } from "react";
import { useTranslation } from "react-i18next";

/** A dialog that is there while it is drawn. Whoever opened it has the focus again when it goes. */
export function Dialog(props: { title: string; close: () => void; children: ReactNode }) {
  const { t } = useTranslation();
  const [before] = useState(() => document.activeElement);
  useEffect(
    () => () => {
      // The dialog's own trap lets go of the focus first.
      setTimeout(() => before instanceof HTMLElement && before.focus({ preventScroll: true }));
    },
    [before],
  );
  return (
    <Modal
      opened
      onClose={props.close}
      title={props.title}
      closeButtonProps={{ "aria-label": t("nav.close") }}
    >
      {props.children}
    </Modal>
  );
}
