import { Anchor } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { Empty } from "../components/Empty";

export default function NotFound() {
  const { t } = useTranslation();
  return (
    <Empty title={t("notFound.title")}>
      <Anchor component={Link} to="/">
        {t("notFound.back")}
      </Anchor>
    </Empty>
  );
}
